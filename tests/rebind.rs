//! `rebind.so` as it is embedded, preloaded into a small C program that is built with
//! glibc and with musl. Knows nothing of the supervisor but the environment variables.

#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

mod flood;
mod peers;
mod probe;
mod rules;

#[path = "../rebind/src/names.rs"]
mod names;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixDatagram;

use object::elf::{DT_NEEDED, FileHeader32, FileHeader64};
use object::read::elf::FileHeader;
use object::{Endianness, Object, ObjectSymbol};
use socket2::{Domain, Socket, Type};

use crate::support::{Lan, has_ipv6, skip_even_in_ci};
use probe::{
    HeldPorts, Probe, REBIND, Supervisor, TOKEN, compile, compiler, preloaded, probes, scratch,
};

/// R2: each kind of socket lands on loopback, under glibc and musl; `SO_REUSEADDR`
/// is the program's until it listens, errno and the caller's memory are untouched,
/// and it can listen.
#[test]
fn r2_moves_each_kind_of_socket() {
    let ports = HeldPorts::new();
    let table = [
        ("tcp4", "", "inet 0.0.0.0", "full", "127.0.0.1"),
        ("tcp4", "", "inet 127.0.0.1", "full", "127.0.0.1"),
        ("tcp4", "", "inet 192.0.2.7", "full", "127.0.2.7"),
        ("tcp4", "", "inet 0.0.0.0", "128", "127.0.0.1"),
        ("tcp4", "", "unspec 0.0.0.0", "full", "127.0.0.1"),
        ("tcp6", "v6only 0", "inet6 ::", "full", "::ffff:127.0.0.1"),
        ("tcp6", "v6only 0", "inet6 ::", "24", "::ffff:127.0.0.1"),
        ("tcp6", "v6only 0", "inet6 ::ffff:0.0.0.0", "full", "::ffff:127.0.0.1"),
        ("tcp6", "v6only 0", "inet6 ::ffff:192.0.2.7", "full", "::ffff:127.0.2.7"),
        ("tcp6", "v6only 0", "inet6 ::1", "full", "::1"),
        ("tcp6", "v6only 1", "inet6 ::", "full", "::1"),
        ("tcp6", "v6only 1", "inet6 2001:db8::7", "full", "::1"),
    ];
    for probe in probes() {
        for (kind, option, wanted, length, expected) in table {
            if expected == "::1" && !has_ipv6() {
                continue;
            }
            let HeldPorts { old, new, .. } = ports;
            let script = format!(
                "socket {kind} {option} bind {wanted} {old} {length} reuse listen reuse name"
            );
            let expected = format!(
                "bind 0 errno 77\nreuse 0\nlisten 0 errno 77\nreuse 1\nname {expected} {new}\n"
            );
            assert_eq!(preloaded(probe, &ports).script(&script), expected, "{script}");
        }
    }
}

/// R2: addresses that differ in their first byte alone are moved to different addresses, in any order. What is bound
/// twice is refused.
#[test]
fn r2_moves_addresses_that_collide() {
    let table = [
        (["127.0.0.1", "10.0.0.1", "192.0.0.1"], ["127.0.0.1", "127.136.55.1", "127.94.55.1"]),
        (["192.0.0.1", "10.0.0.1", "127.0.0.1"], ["127.94.55.1", "127.136.55.1", "127.0.0.1"]),
        (["127.10.0.1", "10.10.0.1", "192.10.0.1"], ["127.10.0.1", "127.73.33.1", "127.31.33.1"]),
    ];
    for probe in probes() {
        for (kind, family, prefix) in [("tcp4", "inet", ""), ("tcp6 v6only 0", "inet6", "::ffff:")]
        {
            for (wanted, expected) in table {
                let ports = HeldPorts::new();
                let HeldPorts { old, new, .. } = ports;
                let bind = |ip| format!("socket {kind} bind {family} {prefix}{ip} {old} full ");
                let script = wanted.map(|ip| bind(ip) + "listen name ").concat() + &bind(wanted[1]);
                let expected = expected.map(|ip| {
                    format!("bind 0 errno 77\nlisten 0 errno 77\nname {prefix}{ip} {new}\n")
                });
                let output = preloaded(probe, &ports).script(&script);
                assert_eq!(output, expected.concat() + "bind -1 errno 98\n", "{script}");
            }
        }
    }
}

/// R1, R2: where there are no IPv6 addresses, an IPv6-only socket can be bound to `::` as without the library, and
/// only the loopback device leads to it. What fails without the library fails with it.
#[test]
fn r1_moves_where_ipv6_is_switched_off() {
    let Some(lan) = Lan::new() else { return };
    lan.here.set("net/ipv6/conf/all/disable_ipv6", 1);
    lan.here.run(|| {
        for (ports, who) in [(HeldPorts::new(), ""), (HeldPorts::of_nobody(), "nobody ")] {
            moves_without_ipv6(&ports, who);
        }
    });
}

fn moves_without_ipv6(ports: &HeldPorts, who: &str) {
    let HeldPorts { old, new, .. } = ports;
    let moved = format!("bind 0 errno 77\nlisten 0 errno 77\nname :: {new}\ndevice lo\n");
    let refused = "bind -1 errno 99\n".to_owned();
    let any = format!("socket tcp6 v6only 1 bind inet6 :: {old} full");
    let table = [
        (format!("{any} listen name device"), moved),
        (format!("{any} {any} device"), "bind 0 errno 77\nbind -1 errno 98\ndevice -\n".to_owned()),
        (
            format!("socket tcp6 v6only 1 bind inet6 ::1 {old} full device"),
            format!("{refused}device -\n"),
        ),
        (format!("socket tcp6 v6only 1 bind inet6 2001:db8::7 {old} full"), refused.clone()),
        (format!("socket tcp6 v6only 1 todevice lo bind inet6 :: {old} full"), refused),
    ];
    // A process without privileges can bind a socket to a device, and cannot undo that.
    let length = if who.is_empty() { table.len() } else { 1 };
    for probe in probes() {
        for (script, expected) in &table[..length] {
            let script = format!("{who}{script}");
            assert_eq!(preloaded(probe, ports).script(&script), *expected, "{script}");
        }
    }
}

/// R2: a multipath socket is a TCP socket.
#[test]
fn r2_moves_multipath_tcp() {
    if fs::read_to_string("/proc/sys/net/mptcp/enabled").is_ok_and(|text| text.trim() == "1") {
        let ports = HeldPorts::new();
        for probe in probes() {
            let script = format!("socket mptcp4 bind inet 0.0.0.0 {} full listen name", ports.old);
            let output = preloaded(probe, &ports).script(&script);
            assert!(output.ends_with(&format!("name 127.0.0.1 {}\n", ports.new)), "{output}");
        }
    } else {
        skip_even_in_ci("the kernel has no multipath TCP");
    }
}

/// R2: both families of one program, also where the program reads the second socket's port from the first socket.
#[test]
fn r2_moves_both_families() {
    if !has_ipv6() {
        return;
    }
    let ports = HeldPorts::new();
    let HeldPorts { old, new, .. } = ports;
    for probe in probes() {
        for second in [old.to_string().as_str(), "same"] {
            let script = format!(
                "socket tcp4 bind inet 0.0.0.0 {old} full listen name \
                 socket tcp6 v6only 1 bind inet6 :: {second} full listen name"
            );
            let moved = |ip| format!("bind 0 errno 77\nlisten 0 errno 77\nname {ip} {new}\n");
            let expected = moved("127.0.0.1") + &moved("::1");
            assert_eq!(preloaded(probe, &ports).script(&script), expected);
        }
    }
}

/// R1: everything else is as if the library were not there: other kinds of
/// sockets, other ports, other families, what the kernel refuses.
#[test]
fn r1_leaves_the_rest_alone() {
    let ports = HeldPorts::new();
    let old = ports.old;
    let scripts = [
        format!("socket udp4 bind inet 127.0.0.1 {old} full reuse name"),
        format!("socket udp6 bind inet6 ::1 {old} full reuse name"),
        format!("socket unix bind unix - {old} full reuse listen"),
        "socket tcp4 bind inet 0.0.0.0 0 full reuse".to_owned(),
        "socket tcp6 bind inet6 :: 0 full reuse listen".to_owned(),
        format!("socket none bind inet 0.0.0.0 {old} full listen"),
        format!("socket tcp4 bind inet 0.0.0.0 {old} 15 reuse"),
        format!("socket tcp4 bind inet 0.0.0.0 {old} 0 reuse"),
        format!("socket tcp4 bind inet 0.0.0.0 {old} 129 reuse"),
        format!("socket tcp4 bind inet 0.0.0.0 {old} -1 reuse"),
        format!("socket tcp4 bind unspec 192.0.2.7 {old} full reuse"),
        format!("socket tcp4 bind unix - {old} full reuse"),
        format!("socket tcp4 bind inet6 :: {old} full reuse"),
        format!("socket tcp6 bind inet6 :: {old} 23 reuse"),
        format!("socket tcp6 bind inet 0.0.0.0 {old} 28 reuse"),
        // An address that is not this machine's, and a port that is not the program's.
        "socket tcp4 bind inet 192.0.2.7 1 full reuse".to_owned(),
    ];
    for probe in probes() {
        for script in &scripts {
            let plain = Probe::new(probe).script(script);
            assert_eq!(preloaded(probe, &ports).script(script), plain, "{script}");
            assert!(!plain.contains("reuse 1"), "{script}");
        }
    }
}

/// R1: a moved bind that the kernel refuses tells the kernel's reason.
#[test]
fn r1_errors_are_those_of_the_real_bind() {
    const EINVAL: i32 = 22;
    const EADDRINUSE: i32 = 98;
    let ports = HeldPorts::new();
    // Another socket listens on the new port, and does not share it.
    let taken = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    taken.set_reuse_port(true).unwrap();
    taken.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, ports.new)).into()).unwrap();
    taken.listen(1).unwrap();
    taken.set_reuse_port(false).unwrap();
    let old = ports.old;
    let table = [
        (format!("socket tcp4 bind inet 0.0.0.0 {old} full"), EADDRINUSE),
        (format!("socket tcp6 v6only 1 bind inet6 ::ffff:0.0.0.0 {old} full"), EINVAL),
    ];
    for probe in probes() {
        for (script, errno) in &table {
            let expected = format!("bind -1 errno {errno}\n");
            assert_eq!(preloaded(probe, &ports).script(script), expected, "{script}");
        }
        let twice = format!("socket tcp4 bind inet 127.0.0.9 {old} full bind inet 0.0.0.0 0 full");
        let expected = format!("bind 0 errno 77\nbind -1 errno {EINVAL}\n");
        assert_eq!(preloaded(probe, &ports).script(&twice), expected);
    }
}

/// R1: a second `bind()` of what is bound fails at once, as it does without the library; one that the program allows
/// does not fail. Where the call fails, `SO_REUSEADDR` is as the program has set it.
#[test]
fn r1_binding_twice_fails_at_once() {
    for probe in probes() {
        let ports = HeldPorts::new();
        // Without the library the port must be free.
        let free = HeldPorts::new().old;
        let script = |old| {
            let bind = format!("socket tcp4 reuseaddr 0 bind inet 127.0.0.1 {old} full reuse");
            let willing = format!("socket tcp4 reuseaddr 1 bind inet 127.0.0.1 {old} full reuse");
            [
                format!("{bind} {bind} reuse first listen"),
                format!("{bind} {willing} first listen {willing}"),
                format!("{willing} {willing} listen first listen reuse"),
                format!("{bind} listen {bind} {willing}"),
            ]
        };
        for (moved, plain) in script(ports.old).iter().zip(script(free)) {
            let plain = Probe::new(probe).script(&plain);
            assert_eq!(preloaded(probe, &ports).script(moved), plain, "{moved}");
        }
    }
}

/// R1: a program that has closed a connection before its client did can start again
/// at once.
#[test]
fn r1_starts_again_despite_time_wait() {
    for probe in probes() {
        let ports = HeldPorts::new();
        let old = ports.old;
        let script = format!("socket tcp4 bind inet 0.0.0.0 {old} full listen name serve");
        for _ in 0..2 {
            let output = preloaded(probe, &ports).script(&script);
            let expected = format!("name 127.0.0.1 {}\nserved\n", ports.new);
            assert!(output.ends_with(&expected), "{output}");
        }
    }
}

/// R1: where the environment makes no sense nothing is moved. A program that is not moved notices by its error: the
/// old port is taken.
#[test]
fn r1_needs_two_ports() {
    let ports = HeldPorts::new();
    let old = ports.old;
    let script = format!("socket tcp4 bind inet 0.0.0.0 {old} full");
    for probe in probes() {
        for value in ["", "0", "70000", "-1", "4 0000", "four", "40000000000"] {
            for name in [names::OLD_PORT, names::NEW_PORT] {
                let mut run = preloaded(probe, &ports);
                run.0.env(name, value);
                assert_eq!(run.script(&script), "bind -1 errno 98\n", "{name}={value}");
            }
        }
        let mut run = preloaded(probe, &ports);
        run.0.env_remove(names::NEW_PORT);
        assert_eq!(run.script(&script), "bind -1 errno 98\n");
    }
}

/// W1: a library that is preloaded after `rebind.so` is still called, with the address that `rebind.so` has moved.
#[test]
fn w1_calls_the_library_behind() {
    let Some(cc) = compiler("gcc") else { return };
    let source = scratch("behind.c");
    fs::write(
        &source,
        r#"#define _GNU_SOURCE
           #include <arpa/inet.h>
           #include <dlfcn.h>
           #include <netinet/in.h>
           #include <stdio.h>
           int bind(int fd, const struct sockaddr *address, socklen_t length) {
               int (*next)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "bind");
               const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
               printf("behind %s:%d\n", inet_ntoa(v4->sin_addr), ntohs(v4->sin_port));
               return next(fd, address, length);
           }"#,
    )
    .unwrap();
    let behind = compile(cc, "behind.so", &["-shared".as_ref(), "-fPIC".as_ref(), source.as_ref()]);
    let ports = HeldPorts::new();
    let mut run = preloaded(&probes()[0], &ports);
    run.0.env("LD_PRELOAD", format!("{REBIND}:{}", behind.display()));
    let output = run.script(&format!("socket tcp4 bind inet 0.0.0.0 {} full", ports.old));
    let moved = format!("behind 127.0.0.1:{}\nbind 0 errno 77\n", ports.new);
    assert!(output.ends_with(&moved), "{output}");
}

/// R3: a listener on the new port is announced with the token and the process
/// id; a bare bind (vncserver's probe), and a listener elsewhere, are not.
#[test]
fn r3_tells_of_a_listener() {
    let ports = HeldPorts::new();
    let old = ports.old;
    let supervisor = Supervisor::new("tells");
    for probe in probes() {
        for script in [
            format!("socket tcp4 bind inet 0.0.0.0 {old} full lowest listen lowest"),
            format!("socket tcp6 v6only 0 bind inet6 :: {old} full lowest listen lowest"),
        ] {
            let mut run = preloaded(probe, &ports);
            supervisor.told_by(&mut run.0);
            let (pid, output) = run.arguments(&script).finish();
            assert!(output.status.success());
            // The socket that the notification needed is closed again.
            let printed = String::from_utf8(output.stdout).unwrap();
            let lowest: Vec<_> = printed.lines().filter(|line| line.starts_with("low")).collect();
            assert!(matches!(lowest[..], [before, after] if before == after), "{printed}");
            assert_eq!(supervisor.notice().as_deref(), Some(format!("{TOKEN} {pid}").as_str()));
            assert_eq!(supervisor.notice(), None);
        }
        for script in [
            format!("socket tcp4 bind inet 0.0.0.0 {old} full"),
            "socket tcp4 bind inet 127.0.0.1 0 full listen".to_owned(),
            format!("socket unix bind unix - {old} full listen"),
            "socket none listen".to_owned(),
        ] {
            let mut run = preloaded(probe, &ports);
            supervisor.told_by(&mut run.0);
            run.script(&script);
            assert_eq!(supervisor.notice(), None, "{script}");
        }
        // A token that is too long is not sent: nobody would believe half of it.
        let mut run = preloaded(probe, &ports);
        supervisor.told_by(&mut run.0);
        run.0.env(names::TOKEN, "x".repeat(65));
        run.script(&format!("socket tcp4 bind inet 0.0.0.0 {old} full listen"));
        assert_eq!(supervisor.notice(), None);
        // Both sockets can be bound, and one can listen.
        let bind = format!("socket tcp4 reuseaddr 1 bind inet 0.0.0.0 {old} full");
        let mut run = preloaded(probe, &ports);
        supervisor.told_by(&mut run.0);
        let output = run.script(&format!("{bind} {bind} listen first listen"));
        assert!(output.ends_with("listen 0 errno 77\nlisten -1 errno 98\n"), "{output}");
        assert!(supervisor.notice().is_some());
        assert_eq!(supervisor.notice(), None);
    }
}

/// R3: the notification comes also from a daemon that closed every descriptor, cleared its environment and, where the
/// test may, changed its root directory and user.
#[test]
fn r3_tells_of_a_daemon() {
    let supervisor = Supervisor::new("daemon");
    let root = tempfile::tempdir().unwrap();
    for probe in probes() {
        // Other ports than those on which the last daemon may still listen.
        let ports = HeldPorts::of_nobody();
        let mut run = preloaded(probe, &ports);
        supervisor.told_by(&mut run.0);
        let root = root.path().display();
        let script =
            format!("daemon {root} socket tcp4 bind inet 0.0.0.0 {} full listen", ports.old);
        let (leader, output) = run.arguments(&script).finish();
        assert!(output.status.success(), "{output:?}");
        let notice = supervisor.wait_for_notice();
        let pid = notice.strip_prefix(TOKEN).expect("the token").trim_start();
        assert_ne!(pid.parse::<u32>().expect("a process id"), leader);
    }
}

/// R3: the program does not wait where nobody receives, or where the queue is full.
#[test]
fn r3_never_waits_for_the_supervisor() {
    let ports = HeldPorts::new();
    let script = format!("socket tcp4 bind inet 0.0.0.0 {} full listen name", ports.old);
    let expected = format!("bind 0 errno 77\nlisten 0 errno 77\nname 127.0.0.1 {}\n", ports.new);
    let supervisor = Supervisor::new("full");
    let flood = UnixDatagram::unbound().unwrap();
    flood.set_nonblocking(true).unwrap();
    while flood.send_to_addr(b"flood", &supervisor.address).is_ok() {}
    for probe in probes() {
        for name in [supervisor.name.as_str(), "nobody-is-here", "", &"x".repeat(108)] {
            let mut run = preloaded(probe, &ports);
            run.0.env(names::NOTIFY, name).env(names::TOKEN, TOKEN);
            assert_eq!(run.script(&script), expected, "{name}");
        }
    }
}

/// R4: threads bind while their process forks, and the children bind too.
#[test]
fn r4_threads_and_forks() {
    let ports = HeldPorts::new();
    for probe in probes() {
        let output = preloaded(probe, &ports).script(&format!("threads {}", ports.old));
        assert_eq!(output, "threads 800 of 800, children failed 0\n");
    }
}

/// R4: the library is small, and needs nothing but the C library to be loaded; musl's is found under the same name.
#[test]
fn r4_needs_the_c_library_alone() {
    // What musl has too, beside what both compilers leave undefined and weak.
    const KNOWN: [&str; 20] = [
        "__errno_location",
        "close",
        "dlsym",
        "fcntl",
        "getenv",
        "getpid",
        "getsockname",
        "getsockopt",
        "lseek",
        "memcpy",
        "memmove",
        "memset",
        "mmap",
        "open",
        "poll",
        "sendmsg",
        "setsockopt",
        "socket",
        "socketpair",
        "strlen",
    ];
    let bytes = fs::read(REBIND).unwrap();
    assert!(bytes.len() <= 24 * 1024, "{} bytes", bytes.len());
    let file = object::File::parse(&*bytes).unwrap();
    let mut defined = Vec::new();
    for symbol in file.dynamic_symbols() {
        let name = symbol.name().unwrap();
        if symbol.is_definition() {
            defined.push(name);
        } else {
            assert!(symbol.is_weak() || name.is_empty() || KNOWN.contains(&name), "needs {name}");
        }
    }
    defined.sort_unstable();
    assert_eq!(defined, ["accept", "accept4", "bind", "getpeername", "listen"]);
    let needed = if file.is_64() {
        needed::<FileHeader64<Endianness>>(&bytes)
    } else {
        needed::<FileHeader32<Endianness>>(&bytes)
    };
    assert!(!needed.is_empty());
    for library in needed {
        assert!(library.starts_with("libc.") || library == "libdl.so.2", "needs {library}");
    }
}

/// The libraries that a library asks for (`DT_NEEDED`).
fn needed<Header: FileHeader<Endian = Endianness>>(bytes: &[u8]) -> Vec<&str> {
    let header = Header::parse(bytes).unwrap();
    let endian = header.endian().unwrap();
    let table = header.sections(endian, bytes).unwrap().dynamic_table(endian, bytes).unwrap();
    let needed = table.iter().filter(|entry| entry.tag == DT_NEEDED);
    needed.map(|entry| str::from_utf8(table.string(entry).unwrap()).unwrap()).collect()
}
