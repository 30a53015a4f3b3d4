# dmsnap: build, check, install. `make help` lists the targets.

CARGO   ?= cargo
INSTALL ?= install
# Tells the dynamic loader of a new library.
LDCONFIG ?= PATH="$$PATH:/sbin:/usr/sbin" ldconfig
PREFIX  ?= /usr/local
DESTDIR ?=

BINDIR       ?= $(PREFIX)/bin
INCLUDEDIR   ?= $(PREFIX)/include
LIBDIR       ?= $(PREFIX)/lib
PKGCONFIGDIR ?= $(LIBDIR)/pkgconfig
MANDIR       ?= $(PREFIX)/share/man

VERSION  := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# The same number is in build.rs.
SONAME   := libdmsnap.so.0
SHARED   := libdmsnap.so.$(VERSION)
RELEASE  := $(or $(CARGO_TARGET_DIR),target)/release
TESTS    := CARGO="$(CARGO)" tests/run.sh

.PHONY: all build demo test lint unit ffi bench qemu iotests qemu-test qemu-series bench-qemu torture install uninstall clean help
.NOTPARALLEL:

all: build

build: ## the tool and both libraries, into target/release
	$(CARGO) build --release --locked

demo: ## a base image with a file system, layers, a snapshot, a merge: all verified
	$(TESTS) demo

test: ## everything: lints, documentation, all tests, the kernel's verdict, the C programs, the demo
	$(TESTS)

lint: ## formatting, clippy, documentation, man page and scripts
	$(TESTS) format clippy documentation manual

unit: ## the Rust tests, those against a real kernel among them
	$(TESTS) rust

ffi: ## the C and C++ programs, against an installed copy of the library
	$(TESTS) ffi

bench: ## measures against raw files and prints a table of ratios
	$(CARGO) bench --locked

qemu: ## QEMU with the driver for dmsnap images, below target/qemu; QEMU_SRC= names a tree
	qemu-patch/build.sh

iotests: qemu ## QEMU's own tests with dmsnap images
	qemu-patch/iotests.sh

qemu-test: ## the driver: its lints, every command of qemu-img, real guests, exports, iotests of its own
	$(TESTS) qemu

qemu-series: qemu ## that QEMU builds at every patch, without the driver, and with it as a module
	qemu-patch/check-series.sh

bench-qemu: qemu ## measures dmsnap, qcow2 and qed in QEMU against raw
	tests/setup.sh qemu
	benches/qemu/run.py

torture: ## looks for defects for BUDGET= seconds (3600), with SEED= if a run is to be repeated
	CARGO="$(CARGO)" tests/torture.sh $(or $(BUDGET),3600) $(SEED)

# Under sudo what was built before is installed: root need not have cargo.
install: ## into PREFIX (/usr/local), below DESTDIR
	@if [ -z "$$SUDO_USER" ] || [ ! -e $(RELEASE)/libdmsnap.so ]; then $(MAKE) build; fi
	$(INSTALL) -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(INCLUDEDIR) $(DESTDIR)$(LIBDIR) \
		$(DESTDIR)$(PKGCONFIGDIR) $(DESTDIR)$(MANDIR)/man1
	$(INSTALL) -m 755 $(RELEASE)/dmsnap $(DESTDIR)$(BINDIR)/dmsnap
	$(INSTALL) -m 644 include/dmsnap.h include/dmsnap.hpp $(DESTDIR)$(INCLUDEDIR)/
	$(INSTALL) -m 755 $(RELEASE)/libdmsnap.so $(DESTDIR)$(LIBDIR)/$(SHARED)
	ln -sf $(SHARED) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libdmsnap.so
	$(INSTALL) -m 644 $(RELEASE)/libdmsnap.a $(DESTDIR)$(LIBDIR)/libdmsnap.a
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' -e 's|@LIBDIR@|$(LIBDIR)|' \
		-e 's|@VERSION@|$(VERSION)|' dmsnap.pc.in > $(DESTDIR)$(PKGCONFIGDIR)/dmsnap.pc
	chmod 644 $(DESTDIR)$(PKGCONFIGDIR)/dmsnap.pc
	$(INSTALL) -m 644 docs/dmsnap.1 $(DESTDIR)$(MANDIR)/man1/dmsnap.1
	@if [ -z "$(DESTDIR)" ] && [ "$$(id -u)" = 0 ]; then $(LDCONFIG) || :; fi

uninstall: ## removes what install put in place
	rm -f $(DESTDIR)$(BINDIR)/dmsnap $(DESTDIR)$(INCLUDEDIR)/dmsnap.h $(DESTDIR)$(INCLUDEDIR)/dmsnap.hpp \
		$(DESTDIR)$(LIBDIR)/libdmsnap.so $(DESTDIR)$(LIBDIR)/$(SONAME) $(DESTDIR)$(LIBDIR)/$(SHARED) \
		$(DESTDIR)$(LIBDIR)/libdmsnap.a $(DESTDIR)$(PKGCONFIGDIR)/dmsnap.pc $(DESTDIR)$(MANDIR)/man1/dmsnap.1

clean: ## removes target/, the kernel for the tests included
	$(CARGO) clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18
