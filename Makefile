# The C library: libdadapt.so, libdadapt.a, dadapt.h, dadapt.pc. Linux, with cargo and GNU binutils.
#
#   make                                    builds it (in target/release)
#   make install PREFIX=/opt/dadapt         installs it; PREFIX is /usr/local by default
#   make install PREFIX=/usr DESTDIR=root   the same for packagers, under root/
#   make uninstall PREFIX=... [DESTDIR=...] removes what install put there
#
# LIBDIR and INCLUDEDIR move single folders. CARGO, CARGOFLAGS, LD, AR, OBJCOPY and STRIP change the
# build; `sudo make install CARGO=true` installs what a user has built.

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
CARGO ?= cargo
CARGOFLAGS ?= --locked
OBJCOPY ?= objcopy
STRIP ?= strip
CARGO_TARGET_DIR ?= target
export CARGO_TARGET_DIR

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# The number of the soname, which cbindings/build.rs writes into the library.
ABI := $(shell sed -n 's/^\#define DADAPT_ABI_VERSION //p' include/dadapt.h)
SYMBOLS := $(shell cat cbindings/symbols.txt)
BUILT = $(CARGO_TARGET_DIR)/release
lib = $(DESTDIR)$(LIBDIR)
include = $(DESTDIR)$(INCLUDEDIR)

all:
	$(CARGO) build --release --package dadapt-capi $(CARGOFLAGS)

# cargo's archive holds all of Rust's library and hundreds of global symbols, which could meet those
# of another Rust library in the same program. One object, with what is needed and only our functions
# to be seen, takes its place. (Bitcode goes too: it is newer than the linker plugins that ar loads.)
install: all
	install -d "$(lib)/pkgconfig" "$(include)"
	install -m 644 include/dadapt.h "$(include)/dadapt.h"
	$(LD) -r --gc-sections $(SYMBOLS:%=-u %) -o "$(lib)/dadapt.o" "$(BUILT)/libdadapt.a"
	$(OBJCOPY) --strip-debug --remove-section=.llvmbc --remove-section=.llvmcmd \
	    --wildcard --keep-global-symbol='dadapt_*' "$(lib)/dadapt.o"
	rm -f "$(lib)/libdadapt.a"
	$(AR) rcs "$(lib)/libdadapt.a" "$(lib)/dadapt.o"
	rm "$(lib)/dadapt.o"
	install -m 755 "$(BUILT)/libdadapt.so" "$(lib)/libdadapt.so.$(VERSION)"
	$(STRIP) --strip-debug "$(lib)/libdadapt.so.$(VERSION)"
	ln -sf libdadapt.so.$(VERSION) "$(lib)/libdadapt.so.$(ABI)"
	ln -sf libdadapt.so.$(ABI) "$(lib)/libdadapt.so"
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@VERSION@|$(VERSION)|' \
	    -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' cbindings/dadapt.pc.in > "$(lib)/pkgconfig/dadapt.pc"

uninstall:
	rm -f "$(include)/dadapt.h" "$(lib)/libdadapt.a" "$(lib)/libdadapt.so" \
	    "$(lib)/libdadapt.so.$(ABI)" "$(lib)/libdadapt.so.$(VERSION)" "$(lib)/pkgconfig/dadapt.pc"

.PHONY: all install uninstall
