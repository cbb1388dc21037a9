# The Debian packages that the tests need, and how those that are missing are installed. For scripts to source.

# Each line is a program, or a file, and the package that has it (of kubernetes-validate, the package by which it is
# installed). libc6-dev has the static libc, and what gcc links to programs. The C++ compiler is for tests/fuzz.
building='
cc:gcc
/usr/include/stdio.h:libc6-dev
'
pages='
node:nodejs
npm:npm
'
programs='
c++:g++
gcc:gcc
go:golang-go
musl-gcc:musl-tools
in.telnetd:telnetd-ssl
vncserver:tigervnc-standalone-server
Xtigervnc:tigervnc-standalone-server
vncpasswd:tigervnc-tools
xauth:xauth
xterm:xterm
xdpyinfo:x11-utils
/usr/share/novnc/vnc.html:novnc
redis-server:redis-server
redis-cli:redis-tools
nginx:nginx-light
/usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream
haproxy:haproxy
apache2:apache2-bin
fail2ban-regex:fail2ban
sshd:openssh-server
dropbear:dropbear-bin
vsftpd:vsftpd
java:default-jdk-headless
chromium:chromium
python3:python3
socat:socat
busybox:busybox
busybox-static:busybox-static
setsid:util-linux
script:bsdutils
ip:iproute2
openssl:openssl
curl:curl
systemd-socket-activate:systemd
systemd-analyze:systemd
man:man-db
fish:fish
zsh:zsh
groff:groff-base
lintian:lintian
promtool:prometheus
kubernetes-validate:python3-venv
'

# The servers lie in sbin, which a user's PATH often lacks.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# The directory of programs whose package cannot be installed beside another of these packages, or that have none. Scripts
# source this file in the project's directory.
aside=${CARGO_TARGET_DIR:-target}/programs
case $aside in /*) ;; *) aside=$PWD/$aside ;; esac
PATH="$PATH:$aside"
export PATH

is_there() {
    [ -e "$1" ] || command -v "$1" >/dev/null
}

# Unpacks the busybox of Debian's busybox-static in $aside: installed, that package would replace busybox. Tests that need it
# are skipped without it.
put_busybox_aside() {
    echo "$0: unpacking busybox-static in $aside"
    mkdir -p "$aside" && (
        cd "$aside"
        { apt-get download -q busybox-static || { apt-get update -q && apt-get download -q busybox-static; }; } &&
            dpkg-deb --fsys-tarfile busybox-static_*.deb | tar -xO --wildcards '*bin/busybox' >unfinished &&
            rm busybox-static_*.deb && chmod 755 unfinished && mv unfinished busybox-static
    ) || echo "$0: cannot get busybox-static" >&2
}

# Installs a checker of Kubernetes's manifests in $aside, of which Debian has no package. Tests that need it are skipped
# without it.
put_kubernetes_validate_aside() {
    echo "$0: installing kubernetes-validate in $aside"
    mkdir -p "$aside" && python3 -m venv "$aside/kubernetes" &&
        "$aside/kubernetes/bin/pip" install --quiet kubernetes-validate==1.37.0 &&
        ln -sf kubernetes/bin/kubernetes-validate "$aside/kubernetes-validate" ||
        echo "$0: cannot get kubernetes-validate" >&2
}

# Installs what is missing of a table like those above.
install() {
    missing=
    for entry in $1; do
        case "$missing " in
            *" ${entry#*:} "*) ;;
            *) is_there "${entry%%:*}" || missing="$missing ${entry#*:}" ;;
        esac
    done
    case "$missing " in
        *" busybox-static "*)
            missing="${missing%% busybox-static*}${missing#* busybox-static}"
            install_packages
            put_busybox_aside
            ;;
        *) install_packages ;;
    esac
    case "$1" in
        *kubernetes-validate:*) is_there kubernetes-validate || put_kubernetes_validate_aside ;;
    esac
}

install_packages() {
    [ -n "$missing" ] || return 0
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        # At a terminal sudo may ask for a password.
        as_root=sudo
        [ -t 0 ] || as_root='sudo -n'
    fi
    command -v apt-get >/dev/null && { [ -z "$as_root" ] || $as_root true; } || {
        echo "$0: these Debian packages are missing, and we may not install them:$missing" >&2
        exit 1
    }
    echo "$0: installing$missing"
    # In runlevel 1, invoke-rc.d(8) does not start the servers that the packages bring.
    $as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 sh -c \
        "apt-get update -q && apt-get install -qy --no-install-recommends $missing"
}
