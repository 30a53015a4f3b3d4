// The C++ face: objects that end themselves, errors as exceptions, callbacks as lambdas.
#include <dmsnap.hpp>
#include <dmsnap.hpp>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

static int failures = 0;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);           \
            failures++;                                                                            \
        }                                                                                          \
    } while (0)

static_assert(std::is_base_of_v<std::system_error, dmsnap::error>);
static_assert(std::is_nothrow_move_constructible_v<dmsnap::image>);
static_assert(!std::is_copy_constructible_v<dmsnap::image>);

static const std::string base = "cxx.raw";
static const std::string layer = "cxx.cow";
static const std::string second = "cxx-2.cow";
constexpr std::size_t size = 1 << 18;

// Runs what must throw an error of that kind.
template <typename Body> static void throws(int errnum, dmsnap_error_kind kind, Body body)
{
    try {
        body();
    } catch (const dmsnap::error &error) {
        if (error.code() == std::error_code(errnum, std::generic_category()) &&
            error.kind() == kind && !error.message().empty() &&
            std::strstr(error.what(), error.message().c_str()) != nullptr) {
            return;
        }
        std::fprintf(stderr, "another error: %s\n", error.what());
    }
    failures++;
}

static std::vector<unsigned char> bytes(std::size_t count, unsigned seed)
{
    std::vector<unsigned char> data(count);
    for (auto &byte : data) {
        seed = seed * 1664525u + 1013904223u;
        byte = static_cast<unsigned char>(seed >> 24);
    }
    return data;
}

static std::vector<unsigned char> contents(const dmsnap::image &image)
{
    std::vector<unsigned char> data(image.size());
    image.read(data.data(), data.size(), 0);
    return data;
}

static dmsnap::image open_layer(const std::string &path)
{
    return dmsnap::image::open(
        path, dmsnap::open_options().writable().origin(DMSNAP_ORIGIN_CHOICE_FROM_IMAGE));
}

static void files()
{
    auto model = bytes(size, 1);
    for (const auto &path : {base, layer, second}) {
        unlink(path.c_str());
    }
    std::ofstream(base, std::ios::binary)
        .write(reinterpret_cast<const char *>(model.data()), static_cast<std::streamsize>(size));
    dmsnap::image::create(layer,
                          dmsnap::create_options().chunk_size(4096).origin(base, DMSNAP_FORMAT_RAW));
    throws(EEXIST, DMSNAP_ERROR_KIND_EXISTS,
           [] { dmsnap::image::create(layer, dmsnap::create_options().size(size)); });
    throws(EACCES, DMSNAP_ERROR_KIND_ORIGIN_REFUSED, [] { dmsnap::image::open(layer); });

    dmsnap::image image = open_layer(layer);
    CHECK(image && image.size() == size && image.chunk_size() == 4096);
    CHECK(contents(image) == model);
    auto data = bytes(10000, 2);
    image.write(data.data(), data.size(), 777);
    std::copy(data.begin(), data.end(), model.begin() + 777);
    iovec iov[2] = {{data.data(), 100}, {data.data() + 100, 200}};
    image.write(iov, 2, 50000);
    std::copy(data.begin(), data.begin() + 300, model.begin() + 50000);
    image.write_zeroes(60000, 5000, true);
    std::fill(model.begin() + 60000, model.begin() + 65000, 0);
    image.flush();
    std::vector<unsigned char> part(300);
    iovec parts[2] = {{part.data(), 150}, {part.data() + 150, 150}};
    image.read(parts, 2, 50000);
    CHECK(std::equal(part.begin(), part.end(), data.begin()));
    throws(EINVAL, DMSNAP_ERROR_KIND_OUT_OF_BOUNDS,
           [&] { image.write(data.data(), data.size(), size - 1); });

    image.snapshot(second, 8192);
    image.write(data.data(), 100, 3);
    std::copy(data.begin(), data.begin() + 100, model.begin() + 3);
    CHECK(contents(image) == model);
    CHECK(image.next_extent(0, size).depth == 0);
    CHECK(image.next_run(0).count == 1);
    CHECK(image.status().kind == DMSNAP_STATUS_KIND_ACTIVE);
    CHECK(image.usage().total_sectors > 0);

    // What a callback throws comes out of the merge; the merge can go on later.
    try {
        image.merge([](const dmsnap_progress &) -> bool { throw std::out_of_range("mine"); });
        CHECK(!"thrown");
    } catch (const std::out_of_range &error) {
        CHECK(std::string(error.what()) == "mine");
    }
    dmsnap_progress last = {};
    image.merge([&](const dmsnap_progress &progress) {
        last = progress;
        return true;
    });
    CHECK(last.done == last.total);
    CHECK(contents(image) == model);
    image.write(data.data(), 100, 3);
    dmsnap::merge merge = image.start_merge();
    while (merge.step()) {
    }
    CHECK(merge.progress().done > 0);
    merge = dmsnap::merge();
    image.discard(0, 4096);
    image.resize(size / 2, true);
    image.resize(size);
    image.close();
    throws(EINVAL, DMSNAP_ERROR_KIND_INVALID_ARGUMENT, [&] { image.close(); });
}

static void facts()
{
    dmsnap::image image = open_layer(layer);
    dmsnap::info info = image.info();
    CHECK(info.facts().layers == 2 && info.facts().virtual_size == size);
    CHECK(std::string(info.layer(0).origin_name) == base);
    CHECK(info.status().kind == DMSNAP_STATUS_KIND_ACTIVE);
    CHECK(info.usage().sectors_allocated > 0);
    dmsnap::descriptor descriptor = info.descriptor();
    CHECK(descriptor.origin_name() == base && descriptor.origin_format() == "raw");
    CHECK(descriptor.read().virtual_size == size);
    image.amend(dmsnap::amend_options().no_origin());
    image.amend(dmsnap::amend_options().origin(base, DMSNAP_FORMAT_RAW));
    throws(EBUSY, DMSNAP_ERROR_KIND_BUSY, [] { dmsnap::check_report::open(layer); });
    image.close();
    auto report = dmsnap::check_report::open(
        layer, dmsnap::check_options().repair(DMSNAP_REPAIR_ALL).origin_size(size).lock(true));
    CHECK(report.summary().remaining_corruptions == 0);
    throws(EINVAL, DMSNAP_ERROR_KIND_INVALID_ARGUMENT, [&] { report.finding(0); });
    CHECK(dmsnap::info::open(layer).facts().layers == 1);
    auto recovered = dmsnap::recover_report::open_in_place(
        layer, dmsnap::recover_options().size(size).chunk_size(4096).bare(false).lock(true));
    CHECK(recovered.summary().complete && !recovered.summary().changed);
    throws(EINVAL, DMSNAP_ERROR_KIND_INVALID_ARGUMENT, [&] { recovered.left_out(0); });
    throws(EEXIST, DMSNAP_ERROR_KIND_EXISTS, [] { dmsnap::recover_report::open(layer, base); });
}

static void storages()
{
    dmsnap::uuid id = {1, 2, 3};
    auto memory = dmsnap::storage::open_memory(0, true);
    auto options = dmsnap::create_options();
    options.size(size).id(id).origin_identity(std::nullopt, size).chunk_size(4096);
    dmsnap::image::create(memory, options);
    CHECK(dmsnap::info::open(memory).descriptor().read().uuid[2] == 3);

    int fd = ::open(base.c_str(), O_RDONLY);
    auto origin = dmsnap::storage::open_fd(fd, "base");
    ::close(fd);
    auto image = dmsnap::image::open(
        memory, dmsnap::open_options().writable().origin(std::move(origin)).lock(true));
    image.write("memory", 6, 10);
    auto upper = dmsnap::storage::open_memory(0, true);
    image.snapshot(upper, std::nullopt);
    image.make_empty();
    image.close();
    CHECK(dmsnap::check_report::open(memory).summary().exceptions == 1);

    // An image as an origin, which outlives its own handle.
    dmsnap::image::create(dmsnap::storage::open_memory(0, true), options);
    auto lower = open_layer(layer);
    auto top = dmsnap::storage::open_memory(0, true);
    dmsnap::image::create(top, options);
    auto over = dmsnap::image::open(top, dmsnap::open_options().writable().origin(lower));
    lower.close();
    over.write("over", 4, 0);
    over.drop_snapshot();
    throws(EIO, DMSNAP_ERROR_KIND_SNAPSHOT_INVALID, [&] { contents(over); });
    throws(EBUSY, DMSNAP_ERROR_KIND_BUSY, [] { open_layer(layer); });
    over = dmsnap::image();

    auto by_path = dmsnap::storage::open(
        layer, dmsnap::file_options().writable().lock(DMSNAP_LOCK_MODE_WRITER));
    auto again = dmsnap::image::open(
        by_path, dmsnap::open_options().origin(base, DMSNAP_FORMAT_RAW).ignore_origin_uuid());
    CHECK(again.size() == size);
}

// A host whose flush tries to close the image that it serves.
struct host {
    std::vector<unsigned char> bytes;
    dmsnap::image *image = nullptr;
    int refused = 0;
};

static dmsnap_storage_ops ops_of(host &host)
{
    dmsnap_storage_ops ops = {};
    ops.struct_size = sizeof(ops);
    ops.opaque = &host;
    ops.preadv = [](void *opaque, const iovec *iov, int, std::uint64_t offset) {
        auto &bytes = static_cast<struct host *>(opaque)->bytes;
        std::size_t left = offset < bytes.size() ? bytes.size() - offset : 0;
        std::size_t len = std::min(left, iov->iov_len);
        std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(offset), len,
                    static_cast<unsigned char *>(iov->iov_base));
        return static_cast<std::int64_t>(len);
    };
    ops.pwritev = [](void *opaque, const iovec *iov, int, std::uint64_t offset) {
        auto &bytes = static_cast<struct host *>(opaque)->bytes;
        bytes.resize(std::max<std::size_t>(bytes.size(), offset + iov->iov_len));
        std::copy_n(static_cast<const unsigned char *>(iov->iov_base), iov->iov_len,
                    bytes.begin() + static_cast<std::ptrdiff_t>(offset));
        return static_cast<std::int64_t>(iov->iov_len);
    };
    ops.flush = [](void *opaque) {
        auto &host = *static_cast<struct host *>(opaque);
        try {
            if (host.image != nullptr) {
                host.image->close();
            }
        } catch (const dmsnap::error &error) {
            host.refused += error.code().value() == EDEADLK;
        }
        return 0;
    };
    ops.size = [](void *opaque, std::uint64_t *size) {
        *size = static_cast<struct host *>(opaque)->bytes.size();
        return 0;
    };
    ops.set_size = [](void *opaque, std::uint64_t size) {
        static_cast<struct host *>(opaque)->bytes.resize(size);
        return 0;
    };
    return ops;
}

static void closed_from_a_callback()
{
    host host;
    auto storage = dmsnap::storage::open_ops(ops_of(host), "host");
    dmsnap::image::create(storage, dmsnap::create_options().size(size));
    auto image = dmsnap::image::open(storage, dmsnap::open_options().writable());
    host.image = &image;
    image.write("x", 1, 0);
    image.flush();
    CHECK(host.refused > 0);
    host.image = nullptr;
    // It is as open as before, and closing it later leaves nothing behind.
    CHECK(image && image.size() == size);
    image.write("y", 1, 1);
    image.close();
}

// Two uses of one storage that contradict each other.
static void one_storage_twice()
{
    auto memory = dmsnap::storage::open_memory(0, true);
    auto options = dmsnap::create_options();
    options.size(size);
    dmsnap::image::create(memory, options);
    auto writable = [&] { return dmsnap::image::open(memory, dmsnap::open_options().writable()); };
    auto image = writable();
    throws(EBUSY, DMSNAP_ERROR_KIND_BUSY, [&] { writable(); });
    throws(EBUSY, DMSNAP_ERROR_KIND_BUSY, [&] { dmsnap::check_report::open(memory); });
    throws(EBUSY, DMSNAP_ERROR_KIND_BUSY, [&] { dmsnap::image::create(memory, options); });
    throws(EBUSY, DMSNAP_ERROR_KIND_BUSY, [&] { image.snapshot(memory, std::nullopt); });
    image.write("mine", 4, 0);
    image.close();
    CHECK(dmsnap::check_report::open(memory).summary().exceptions == 1);
    writable().close();
}

static void store_half()
{
    dmsnap::uuid id = {9};
    dmsnap::descriptor descriptor(size, id);
    descriptor.set_origin("origin", "raw", id, 512).set_virtual_size(2 * size);
    CHECK(descriptor.read().virtual_size == 2 * size);
    dmsnap_plan *raw = nullptr;
    dmsnap::check(dmsnap_store_format(4096, descriptor.get(), false, &raw));
    dmsnap::plan plan(raw);
    CHECK(dmsnap_plan_step_count(plan.get()) > 0);
    dmsnap::load_options options(dmsnap_load_options_new(1 << 20));
    dmsnap_loader *loading = nullptr;
    dmsnap::check(dmsnap_loader_new(options.get(), &loading));
    dmsnap::loader loader(loading);
    throws(EINVAL, DMSNAP_ERROR_KIND_INVALID_ARGUMENT, [&] {
        dmsnap_store *store = nullptr;
        dmsnap::check(dmsnap_loader_finish(loader.release(), &store));
    });
}

int main()
{
    try {
        files();
        facts();
        storages();
        closed_from_a_callback();
        one_storage_twice();
        store_half();
    } catch (const std::exception &error) {
        std::fprintf(stderr, "unexpected: %s\n", error.what());
        return 1;
    }
    return failures > 0;
}
