// SPDX-License-Identifier: MIT OR Apache-2.0
//
// dmsnap for C++17: the handles of dmsnap.h as objects that end themselves, errors as exceptions.
// Nothing else is added, and dmsnap.h is the documentation; names are its names without the noun.
// `get()` gives the C handle for whatever is not wrapped here.
//
// Threads are as in C: what takes a `const` handle there may run at the same time here.
#ifndef DMSNAP_HPP
#define DMSNAP_HPP

#include <dmsnap.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

namespace dmsnap {

using uuid = std::array<std::uint8_t, 16>;

// A failed call: `code()` is the errno in the generic category, `kind()` tells apart what shares
// one.
class error : public std::system_error {
public:
    error(int errnum, dmsnap_error_kind kind, const std::string &message)
        : std::system_error(errnum, std::generic_category(), message), kind_(kind), message_(message)
    {
    }

    // The error that the last call on this thread left; `result` is what that call returned.
    static error last(int result)
    {
        return error(-result, dmsnap_last_error_kind(), dmsnap_last_error_message());
    }

    dmsnap_error_kind kind() const noexcept
    {
        return kind_;
    }

    // The library's line, without what std::system_error adds.
    const std::string &message() const noexcept
    {
        return message_;
    }

private:
    dmsnap_error_kind kind_;
    std::string message_;
};

// Throws if a call failed.
inline void check(int result)
{
    if (result < 0) {
        throw error::last(result);
    }
}

namespace detail {

template <typename T, void (*End)(T *)> struct ender {
    void operator()(T *handle) const noexcept
    {
        End(handle);
    }
};

inline void close_image(dmsnap_image *image)
{
    dmsnap_image_close(image);
}

// A handle that ends itself. Can be moved, not copied.
template <typename T, void (*End)(T *)> class handle {
public:
    explicit handle(T *raw = nullptr) noexcept : raw_(raw)
    {
    }

    T *get() const noexcept
    {
        return raw_.get();
    }

    // Gives the handle to the caller, who ends it.
    T *release() noexcept
    {
        return raw_.release();
    }

    explicit operator bool() const noexcept
    {
        return raw_ != nullptr;
    }

private:
    std::unique_ptr<T, ender<T, End>> raw_;
};

// A structure with its size set.
template <typename T> T sized()
{
    T value = {};
    value.struct_size = sizeof(T);
    return value;
}

// Calls a function of C that gives a structure.
template <typename T, typename Function, typename... Arguments>
T filled(Function function, Arguments... arguments)
{
    T value = sized<T>();
    check(function(arguments..., &value));
    return value;
}

// Calls a function of C that gives a handle.
template <typename T, typename Function, typename... Arguments>
T *opened(Function function, Arguments... arguments)
{
    T *raw = nullptr;
    check(function(arguments..., &raw));
    return raw;
}

} // namespace detail

class file_options : public detail::handle<dmsnap_file_options, dmsnap_file_options_free> {
public:
    file_options() : handle(dmsnap_file_options_new())
    {
    }

    file_options &writable(bool writable = true)
    {
        check(dmsnap_file_options_set_writable(get(), writable));
        return *this;
    }

    file_options &direct(bool direct = true)
    {
        check(dmsnap_file_options_set_direct(get(), direct));
        return *this;
    }

    file_options &create(bool create = true)
    {
        check(dmsnap_file_options_set_create(get(), create));
        return *this;
    }

    file_options &lock(dmsnap_lock_mode mode)
    {
        check(dmsnap_file_options_set_lock(get(), mode));
        return *this;
    }
};

class storage : public detail::handle<dmsnap_storage, dmsnap_storage_free> {
public:
    using handle::handle;

    static storage open(const std::string &path, const file_options &options = file_options())
    {
        return storage(detail::opened<dmsnap_storage>(dmsnap_storage_open, path.c_str(), options.get()));
    }

    // The descriptor stays the caller's and may be closed at any time.
    static storage open_fd(int fd, const std::string &name,
                           const file_options &options = file_options())
    {
        return storage(
            detail::opened<dmsnap_storage>(dmsnap_storage_open_fd, fd, name.c_str(), options.get()));
    }

    static storage open_ops(const dmsnap_storage_ops &ops, const std::string &name)
    {
        return storage(detail::opened<dmsnap_storage>(dmsnap_storage_open_ops, &ops, name.c_str()));
    }

    static storage open_memory(std::uint64_t size, bool growable)
    {
        return storage(detail::opened<dmsnap_storage>(dmsnap_storage_open_memory, size, growable));
    }
};

class image;

class open_options : public detail::handle<dmsnap_open_options, dmsnap_open_options_free> {
public:
    open_options() : handle(dmsnap_open_options_new())
    {
    }

    open_options &writable(bool writable = true)
    {
        check(dmsnap_open_options_set_writable(get(), writable));
        return *this;
    }

    open_options &direct(bool direct = true)
    {
        check(dmsnap_open_options_set_direct(get(), direct));
        return *this;
    }

    open_options &lock(bool lock)
    {
        check(dmsnap_open_options_set_lock(get(), lock));
        return *this;
    }

    open_options &overflow_mode(dmsnap_overflow_mode mode)
    {
        check(dmsnap_open_options_set_overflow_mode(get(), mode));
        return *this;
    }

    open_options &origin(dmsnap_origin_choice choice)
    {
        check(dmsnap_open_options_set_origin(get(), choice));
        return *this;
    }

    open_options &origin(const std::string &path, dmsnap_format format,
                         dmsnap_origin_choice below = DMSNAP_ORIGIN_CHOICE_REFUSE)
    {
        check(dmsnap_open_options_set_origin_path(get(), path.c_str(), format, below));
        return *this;
    }

    open_options &origin(const storage &origin)
    {
        check(dmsnap_open_options_set_origin_storage(get(), origin.get()));
        return *this;
    }

    inline open_options &origin(const image &origin);

    open_options &ignore_origin_uuid(bool ignore = true)
    {
        check(dmsnap_open_options_set_ignore_origin_uuid(get(), ignore));
        return *this;
    }

    open_options &ignore_descriptor_damage(bool ignore = true)
    {
        check(dmsnap_open_options_set_ignore_descriptor_damage(get(), ignore));
        return *this;
    }

    open_options &bare_size(std::uint64_t bytes)
    {
        check(dmsnap_open_options_set_bare_size(get(), bytes));
        return *this;
    }
};

class create_options : public detail::handle<dmsnap_create_options, dmsnap_create_options_free> {
public:
    create_options() : handle(dmsnap_create_options_new())
    {
    }

    create_options &chunk_size(std::uint64_t bytes)
    {
        check(dmsnap_create_options_set_chunk_size(get(), bytes));
        return *this;
    }

    create_options &size(std::uint64_t bytes)
    {
        check(dmsnap_create_options_set_size(get(), bytes));
        return *this;
    }

    create_options &origin(const std::string &name, dmsnap_format format)
    {
        check(dmsnap_create_options_set_origin(get(), name.c_str(), format));
        return *this;
    }

    create_options &origin_identity(const std::optional<uuid> &id, std::uint64_t size)
    {
        check(dmsnap_create_options_set_origin_identity(get(), id ? id->data() : nullptr,
                                                        size));
        return *this;
    }

    create_options &bare(bool bare = true)
    {
        check(dmsnap_create_options_set_bare(get(), bare));
        return *this;
    }

    create_options &id(const uuid &id)
    {
        check(dmsnap_create_options_set_uuid(get(), id.data()));
        return *this;
    }

    create_options &on_existing(bool on_existing = true)
    {
        check(dmsnap_create_options_set_on_existing(get(), on_existing));
        return *this;
    }
};

class amend_options : public detail::handle<dmsnap_amend_options, dmsnap_amend_options_free> {
public:
    amend_options() : handle(dmsnap_amend_options_new())
    {
    }

    amend_options &origin(const std::string &name, dmsnap_format format)
    {
        check(dmsnap_amend_options_set_origin(get(), name.c_str(), format));
        return *this;
    }

    amend_options &no_origin()
    {
        check(dmsnap_amend_options_set_origin(get(), nullptr, 0));
        return *this;
    }

    amend_options &add_descriptor(std::uint64_t size)
    {
        check(dmsnap_amend_options_add_descriptor(get(), size));
        return *this;
    }

    amend_options &id(const uuid &id)
    {
        check(dmsnap_amend_options_set_uuid(get(), id.data()));
        return *this;
    }

    amend_options &remove_descriptor()
    {
        check(dmsnap_amend_options_remove_descriptor(get()));
        return *this;
    }
};

class check_options : public detail::handle<dmsnap_check_options, dmsnap_check_options_free> {
public:
    check_options() : handle(dmsnap_check_options_new())
    {
    }

    check_options &repair(dmsnap_repair what)
    {
        check(dmsnap_check_options_set_repair(get(), what));
        return *this;
    }

    check_options &lock(bool lock)
    {
        check(dmsnap_check_options_set_lock(get(), lock));
        return *this;
    }

    check_options &origin_size(std::uint64_t bytes)
    {
        check(dmsnap_check_options_set_origin_size(get(), bytes));
        return *this;
    }
};

class descriptor : public detail::handle<dmsnap_descriptor, dmsnap_descriptor_free> {
public:
    using handle::handle;

    descriptor(std::uint64_t virtual_size, const uuid &id)
        : handle(detail::opened<dmsnap_descriptor>(dmsnap_descriptor_new, virtual_size,
                                                   id.data()))
    {
    }

    dmsnap_descriptor_info read() const
    {
        return detail::filled<dmsnap_descriptor_info>(dmsnap_descriptor_read, get());
    }

    std::optional<std::string> origin_name() const
    {
        return text(dmsnap_descriptor_origin_name(get()));
    }

    std::optional<std::string> origin_format() const
    {
        return text(dmsnap_descriptor_origin_format(get()));
    }

    descriptor &set_virtual_size(std::uint64_t bytes)
    {
        check(dmsnap_descriptor_set_virtual_size(get(), bytes));
        return *this;
    }

    descriptor &set_origin(const std::string &name, const std::string &format,
                           const std::optional<uuid> &id, std::uint64_t size)
    {
        check(dmsnap_descriptor_set_origin(get(), name.c_str(), format.c_str(),
                                           id ? id->data() : nullptr, size));
        return *this;
    }

private:
    static std::optional<std::string> text(const char *text)
    {
        return text == nullptr ? std::nullopt : std::optional<std::string>(text);
    }
};

class info : public detail::handle<dmsnap_info, dmsnap_info_free> {
public:
    using handle::handle;

    static info open(const std::string &path)
    {
        return info(detail::opened<dmsnap_info>(dmsnap_info_open, path.c_str()));
    }

    static info open(const storage &storage)
    {
        return info(detail::opened<dmsnap_info>(dmsnap_info_open_storage, storage.get()));
    }

    dmsnap_facts facts() const
    {
        return detail::filled<dmsnap_facts>(dmsnap_info_facts, get());
    }

    dmsnap_status status() const
    {
        return detail::filled<dmsnap_status>(dmsnap_info_status, get());
    }

    dmsnap_usage usage() const
    {
        return detail::filled<dmsnap_usage>(dmsnap_info_usage, get());
    }

    // False where the store is bare.
    dmsnap::descriptor descriptor() const
    {
        return dmsnap::descriptor(detail::opened<dmsnap_descriptor>(dmsnap_info_descriptor, get()));
    }

    dmsnap_layer layer(std::uint64_t index) const
    {
        return detail::filled<dmsnap_layer>(dmsnap_info_layer, get(), index);
    }
};

class check_report : public detail::handle<dmsnap_check_report, dmsnap_check_report_free> {
public:
    using handle::handle;

    static check_report open(const std::string &path, const check_options &options = check_options())
    {
        return check_report(detail::opened<dmsnap_check_report>(dmsnap_check_report_open,
                                                                path.c_str(), options.get()));
    }

    static check_report open(const storage &storage, const check_options &options = check_options())
    {
        return check_report(detail::opened<dmsnap_check_report>(dmsnap_check_report_open_storage,
                                                                storage.get(), options.get()));
    }

    dmsnap_check_summary summary() const
    {
        return detail::filled<dmsnap_check_summary>(dmsnap_check_report_summary, get());
    }

    dmsnap_finding finding(std::uint64_t index) const
    {
        return detail::filled<dmsnap_finding>(dmsnap_check_report_finding, get(), index);
    }
};

class recover_options : public detail::handle<dmsnap_recover_options, dmsnap_recover_options_free> {
public:
    recover_options() : handle(dmsnap_recover_options_new()) {}

    recover_options &size(std::uint64_t bytes)
    {
        check(dmsnap_recover_options_set_size(get(), bytes));
        return *this;
    }

    recover_options &origin(const std::string &name, dmsnap_format format)
    {
        check(dmsnap_recover_options_set_origin(get(), name.c_str(), format));
        return *this;
    }

    recover_options &chunk_size(std::uint64_t bytes)
    {
        check(dmsnap_recover_options_set_chunk_size(get(), bytes));
        return *this;
    }

    recover_options &bare(bool bare = true)
    {
        check(dmsnap_recover_options_set_bare(get(), bare));
        return *this;
    }

    recover_options &lock(bool lock)
    {
        check(dmsnap_recover_options_set_lock(get(), lock));
        return *this;
    }
};

class recover_report : public detail::handle<dmsnap_recover_report, dmsnap_recover_report_free> {
public:
    using handle::handle;

    static recover_report open(const std::string &path, const std::string &new_path,
                               const recover_options &options = recover_options())
    {
        return recover_report(detail::opened<dmsnap_recover_report>(dmsnap_recover_report_open,
                                                                    path.c_str(), new_path.c_str(),
                                                                    options.get(), nullptr,
                                                                    nullptr));
    }

    // What is left out is lost for good.
    static recover_report open_in_place(const std::string &path,
                                        const recover_options &options = recover_options())
    {
        return recover_report(detail::opened<dmsnap_recover_report>(dmsnap_recover_report_open,
                                                                    path.c_str(), nullptr,
                                                                    options.get(), nullptr,
                                                                    nullptr));
    }

    dmsnap_recover_summary summary() const
    {
        return detail::filled<dmsnap_recover_summary>(dmsnap_recover_report_summary, get());
    }

    dmsnap_left_out left_out(std::uint64_t index) const
    {
        return detail::filled<dmsnap_left_out>(dmsnap_recover_report_left_out, get(), index);
    }
};

class merge : public detail::handle<dmsnap_merge, dmsnap_merge_free> {
public:
    using handle::handle;

    // Whether there is more to do.
    bool step()
    {
        bool more = false;
        check(dmsnap_merge_step(get(), &more));
        return more;
    }

    dmsnap_progress progress() const
    {
        return detail::filled<dmsnap_progress>(dmsnap_merge_progress, get());
    }
};

// An open image. The destructor closes it and cannot report a failure; `close` does.
class image : public detail::handle<dmsnap_image, detail::close_image> {
public:
    using handle::handle;

    static void create(const std::string &path, const create_options &options)
    {
        check(dmsnap_image_create(path.c_str(), options.get()));
    }

    static void create(const storage &storage, const create_options &options)
    {
        check(dmsnap_image_create_on(storage.get(), options.get()));
    }

    static image open(const std::string &path, const open_options &options = open_options())
    {
        return image(detail::opened<dmsnap_image>(dmsnap_image_open, path.c_str(), options.get()));
    }

    static image open(const storage &storage, const open_options &options = open_options())
    {
        return image(
            detail::opened<dmsnap_image>(dmsnap_image_open_storage, storage.get(), options.get()));
    }

    // From inside a callback of its own the image cannot be closed, and stays open.
    void close()
    {
        int result = dmsnap_image_close(get());
        if (result != -EDEADLK) {
            release();
        }
        check(result);
    }

    std::uint64_t size() const
    {
        std::uint64_t bytes = 0;
        check(dmsnap_image_size(get(), &bytes));
        return bytes;
    }

    std::uint64_t chunk_size() const
    {
        std::uint64_t bytes = 0;
        check(dmsnap_image_chunk_size(get(), &bytes));
        return bytes;
    }

    void read(void *buffer, std::size_t len, std::uint64_t offset) const
    {
        check(dmsnap_image_read(get(), buffer, len, offset));
    }

    void read(const iovec *iov, int count, std::uint64_t offset) const
    {
        check(dmsnap_image_readv(get(), iov, count, offset));
    }

    void write(const void *buffer, std::size_t len, std::uint64_t offset) const
    {
        check(dmsnap_image_write(get(), buffer, len, offset));
    }

    void write(const iovec *iov, int count, std::uint64_t offset) const
    {
        check(dmsnap_image_writev(get(), iov, count, offset));
    }

    void flush() const
    {
        check(dmsnap_image_flush(get()));
    }

    void discard(std::uint64_t offset, std::uint64_t len) const
    {
        check(dmsnap_image_discard(get(), offset, len));
    }

    void write_zeroes(std::uint64_t offset, std::uint64_t len, bool unmap) const
    {
        check(dmsnap_image_write_zeroes(get(), offset, len, unmap));
    }

    void resize(std::uint64_t size, bool shrink = false) const
    {
        check(dmsnap_image_resize(get(), size, shrink));
    }

    void snapshot(const std::string &path, std::uint64_t chunk_size = 0) const
    {
        check(dmsnap_image_snapshot(get(), path.c_str(), chunk_size));
    }

    void snapshot(const storage &storage, const std::optional<std::string> &origin_name,
                  std::uint64_t chunk_size = 0) const
    {
        check(dmsnap_image_snapshot_to(get(), storage.get(),
                                       origin_name ? origin_name->c_str() : nullptr, chunk_size));
    }

    // `progress` is called between the batches; false from it stops the merge. What it throws stops
    // the merge too, and is thrown on when the library has come to rest.
    void merge(const std::function<bool(const dmsnap_progress &)> &progress = nullptr) const
    {
        reporter caller = {progress, nullptr};
        int result = dmsnap_image_merge(get(), progress ? report : nullptr, &caller);
        if (caller.thrown) {
            std::rethrow_exception(caller.thrown);
        }
        check(result);
    }

    dmsnap::merge start_merge() const
    {
        return dmsnap::merge(detail::opened<dmsnap_merge>(dmsnap_merge_open, get()));
    }

    dmsnap_extent next_extent(std::uint64_t offset, std::uint64_t len) const
    {
        return detail::filled<dmsnap_extent>(dmsnap_image_next_extent, get(), offset, len);
    }

    dmsnap_run next_run(std::uint64_t old_chunk) const
    {
        return detail::filled<dmsnap_run>(dmsnap_image_next_run, get(), old_chunk);
    }

    dmsnap_status status() const
    {
        return detail::filled<dmsnap_status>(dmsnap_image_status, get());
    }

    dmsnap_usage usage() const
    {
        return detail::filled<dmsnap_usage>(dmsnap_image_usage, get());
    }

    dmsnap::info info() const
    {
        return dmsnap::info(detail::opened<dmsnap_info>(dmsnap_image_info, get()));
    }

    void amend(const amend_options &options) const
    {
        check(dmsnap_image_amend(get(), options.get()));
    }

    void make_empty() const
    {
        check(dmsnap_image_make_empty(get()));
    }

    void drop_snapshot() const
    {
        check(dmsnap_image_drop_snapshot(get()));
    }

private:
    struct reporter {
        const std::function<bool(const dmsnap_progress &)> &progress;
        std::exception_ptr thrown;
    };

    // No exception may cross C.
    static bool report(void *opaque, const dmsnap_progress *progress)
    {
        reporter &self = *static_cast<reporter *>(opaque);
        try {
            return self.progress(*progress);
        } catch (...) {
            self.thrown = std::current_exception();
            return false;
        }
    }
};

inline open_options &open_options::origin(const image &origin)
{
    check(dmsnap_open_options_set_origin_image(get(), origin.get()));
    return *this;
}

// The half without I/O, for hosts with an I/O engine of their own. The calls of the store are made
// on `get()`.
using load_options = detail::handle<dmsnap_load_options, dmsnap_load_options_free>;
using loader = detail::handle<dmsnap_loader, dmsnap_loader_free>;
using check_reader = detail::handle<dmsnap_check_reader, dmsnap_check_reader_free>;
using plan = detail::handle<dmsnap_plan, dmsnap_plan_free>;
using store = detail::handle<dmsnap_store, dmsnap_store_free>;

} // namespace dmsnap

#endif
