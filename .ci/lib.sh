# shellcheck shell=bash
# What neon, avx512 and portable share, to be sourced by them.

# What they download stays here.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/dadapt
prefix=$cache/neon

die() {
    echo "$0: $*" >&2
    exit 1
}

# Runs a program again where it fails, as mirrors and networks do at times.
retry() {
    local attempt
    for attempt in 1 2 3; do
        if "$@"; then return; fi
        echo "$0: attempt $attempt of 3 failed: $*" >&2
        sleep $((attempt * attempt * 5))
    done
    return 1
}

# Holds what follows back until no other script of ours installs or unpacks.
lock() {
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock 9
}

unlock() { exec 9>&-; }

# Installs those of Debian's packages that are not there.
install_debs() {
    local package missing=() as_root=()
    for package; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
            missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "installing ${missing[*]}"
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    retry "${as_root[@]}" apt-get -qq -o APT::Update::Error-Mode=any update
    retry "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -qq \
        -o DPkg::Lock::Timeout=500 install --no-install-recommends "${missing[@]}" >/dev/null
}

# Makes cargo use Debian's rustc-web, unpacked into the cache with the standard library for
# AArch64. rustup stays as it is, and so do apt's lists and dpkg's architectures. What it builds has a
# folder of its own, so that no other cargo waits.
use_cross_rust() {
    install_debs libxml2 libedit2 libz3-4
    [ -e "$prefix/version" ] || unpack_cross_rust
    export RUSTC=$prefix/rustc RUSTDOC=$prefix/rustdoc CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/cross
}

unpack_cross_rust() (
    new=$prefix.new
    echo "unpacking Debian's rustc-web into $prefix"
    rm -rf "$new"
    mkdir -p "$new"/{lists/partial,debs,root}
    cd "$new/debs" || exit
    options=(-qq -o Dir::State::Lists="$new/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
        -o APT::Sandbox::User=root -o APT::Architectures::=amd64 -o APT::Architectures::=arm64)
    retry apt-get "${options[@]}" -o APT::Update::Error-Mode=any update
    version=$(apt-cache "${options[@]}" madison rustc-web | awk '{print $3; exit}')
    std=libstd-rust-web-$(cut -d. -f1,2 <<<"$version")
    packages=({rustc-web,"$std",libstd-rust-web-dev}:amd64 libstd-rust-web-dev:arm64)
    retry apt-get "${options[@]}" download "${packages[@]/%/=$version}"
    llvm=$(dpkg-deb -f "$std"_*_amd64.deb Depends | grep -o 'libllvm[0-9]*')
    retry apt-get "${options[@]}" download "$llvm:amd64"
    for deb in *.deb; do dpkg -x "$deb" "$new/root"; done
    for tool in rustc rustdoc; do
        printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s" "$@"\n' \
            "$prefix/root/usr/lib/x86_64-linux-gnu" "$prefix/root/usr/bin/$tool" >"$new/$tool"
        chmod +x "$new/$tool"
    done
    rm -rf "$new/lists" "$new/debs" "$prefix"
    echo "$version" >"$new/version"
    mv "$new" "$prefix"
)

# Runs a command whose last part is the arguments of the kernels' test program, from a "--" on, and
# says what ran. Unless $chosen says that the caller has chosen, the pinned hashes must have been compared.
run_kernels() {
    local log passed left pinned='bits::bits_are_those_of_every_other_machine'
    log=$(mktemp)
    # shellcheck disable=SC2064 # $log is gone by then
    trap "rm -f '$log'" EXIT
    echo "required: $DADAPT_REQUIRE_ISA; repetitions: one in $DADAPT_TEST_SCALE"
    "$@" 2>&1 | tee "$log"
    read -r passed left <<<"$(sed -n \
        's/^test result: ok\. \([0-9]*\) passed; 0 failed; 0 ignored; .* \([0-9]*\) filtered out.*/\1 \2/p' "$log")"
    [ "${passed:-0}" -gt 0 ] || die "no test has run"
    echo "$0: $passed tests passed with $DADAPT_REQUIRE_ISA, $left were left out"
    if grep -q "^test $pinned \.\.\. ok" "$log"; then
        echo "$0: the bits have the hashes pinned in tests/kernels/bits.rs, which other machines' have too"
    else
        [ -n "${chosen:-}" ] || die "$pinned has not run"
    fi
}
