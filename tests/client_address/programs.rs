//! Programs from Debian's packages that are told their clients' addresses (A2): what each of them sees, blocks or
//! logs.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{client, engine_for, session_from, wait_for_open};
use crate::programs::{Telnet, vnc_response};
use crate::support::{
    Client, DEADLINE, Websockify, display, free_port, needs, needs_root, wait_for, wait_until,
    write_script,
};

const SOCKET: &str = "--client-address=socket";

/// A directory for a program's files, which any user may enter.
fn place() -> TempDir {
    let directory = TempDir::new().unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    directory
}

fn wrap(options: &str, port: u16, program: &str, directory: &Path) -> Websockify {
    let line = format!("{port} {} {options} -- {program}", engine_for(options));
    let websockify = Websockify::start_with(&line, |command| {
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        command.current_dir(directory).env("HOME", directory).env("PATH", path);
    });
    wait_for_open(&websockify);
    websockify
}

/// Whether a server is installed; looks in `/usr/sbin` too, which a user's PATH often lacks.
fn needs_server(program: &str) -> bool {
    Path::new("/usr/sbin").join(program).is_file() || needs(&[program])
}

#[test]
fn a2_nginx_knows_and_allows_by_address() {
    if !needs_server("nginx") {
        return;
    }
    let (directory, port) = (place(), free_port());
    let allowed = client(1);
    fs::write(
        directory.path().join("nginx.conf"),
        format!(
            "daemon off; pid nginx.pid; error_log stderr;\n\
             events {{}}\n\
             http {{ access_log off; client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp;\n\
             uwsgi_temp_path tmp; scgi_temp_path tmp;\n\
             server {{ listen {port}; location / {{ allow {allowed}; deny all; try_files $uri @who; }}\n\
             location @who {{ return 200 \"you are $remote_addr $remote_port\\n\"; }} }} }}\n"
        ),
    )
    .unwrap();
    let _nginx = wrap(
        SOCKET,
        port,
        &format!("nginx -p {} -c nginx.conf", directory.path().display()),
        directory.path(),
    );
    for n in [1, 2, 1] {
        let (mut one, from) = session_from(client(n), port);
        one.send("GET /x HTTP/1.0\r\n\r\n");
        let status = one.read_until("\r\n");
        if n == 1 {
            assert!(status.contains(" 200 "), "{status}");
            one.read_until(&format!("you are {} {}\n", from.ip(), from.port()));
        } else {
            assert!(status.contains(" 403 "), "{status}");
        }
    }
}

#[test]
fn a2_redis_lists_its_clients() {
    if !needs(&["redis-server"]) {
        return;
    }
    let (directory, port) = (place(), free_port());
    let program = format!("redis-server --port {port} --protected-mode no --save --dir .");
    let program = program.replace("--save ", "--save 3600 1 ");
    let _redis = wrap(SOCKET, port, &program, directory.path());
    let clients: Vec<_> = [1, 2].map(|n| session_from(client(n), port)).into();
    let froms: Vec<SocketAddr> = clients.iter().map(|(_, from)| *from).collect();
    for (mut one, from) in clients {
        one.send("CLIENT LIST\r\n");
        let list = one.read_until("\n\r\n");
        assert!(list.contains(&format!("addr={from} ")), "{from}: {list}");
        assert!(!list.contains(" addr=127.0.0.1:"), "{froms:?}: {list}");
    }
}

/// Redis refuses clients that are not local (protected mode): so to show it the real address is opt-in.
#[test]
fn a1_redis_protects_itself_from_those_who_are_not_local() {
    let Some(lan) = crate::support::Lan::new() else { return };
    if !needs(&["redis-server"]) {
        return;
    }
    let (directory, port) = (place(), free_port());
    let _redis = lan.here.run(|| {
        wrap(SOCKET, port, &format!("redis-server --port {port} --dir ."), directory.path())
    });
    let said = lan.there.run(|| {
        let mut one = Client::dial((crate::support::Lan::HERE, port)).unwrap();
        one.send("PING\r\n");
        one.read_until("\r\n")
    });
    assert!(said.starts_with("-DENIED"), "{said}");
}

#[test]
fn a2_sshd_writes_down_who_came() {
    if !needs_root() || !needs_server("sshd") {
        return;
    }
    let (directory, port) = (place(), free_port());
    let key = directory.path().join("key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status()
        .unwrap();
    assert!(made.success());
    let _ = fs::create_dir_all("/run/sshd");
    let program = format!(
        "/usr/sbin/sshd -D -e -f /dev/null -p {port} -h {} -o UsePAM=no -o LogLevel=VERBOSE -o PidFile=none",
        key.display()
    );
    let sshd = wrap(SOCKET, port, &program, directory.path());
    for n in [1, 2] {
        let (mut one, from) = session_from(client(n), port);
        assert!(one.read_until("\r\n").starts_with("SSH-2.0-OpenSSH"));
        one.send("SSH-2.0-\u{1}\r\n");
        let expected = format!("Connection from {} port {}", from.ip(), from.port());
        wait_until(&expected, || sshd.err.text().contains(&expected));
    }
}

#[test]
fn a2_dropbear_writes_down_who_came() {
    if !needs_server("dropbear") {
        return;
    }
    let (directory, port) = (place(), free_port());
    let program =
        format!("dropbear -F -E -R -p {port} -r {}", directory.path().join("key").display());
    let made = Command::new("dropbearkey")
        .args(["-t", "ed25519", "-f"])
        .arg(directory.path().join("key"))
        .output()
        .unwrap();
    assert!(made.status.success());
    let dropbear = wrap(SOCKET, port, &program, directory.path());
    for n in [1, 2] {
        let (mut one, from) = session_from(client(n), port);
        assert!(one.read_until("\r\n").starts_with("SSH-2.0-dropbear"));
        let expected = format!("Child connection from {from}");
        wait_until(&expected, || dropbear.err.text().contains(&expected));
    }
}

#[test]
fn a2_vsftpd_writes_down_who_came() {
    if !needs_root() || !needs_server("vsftpd") {
        return;
    }
    let (directory, port) = (place(), free_port());
    let (log, empty) = (directory.path().join("log"), directory.path().join("empty"));
    fs::create_dir(&empty).unwrap();
    fs::write(
        directory.path().join("conf"),
        format!(
            "listen=YES\nbackground=NO\nlisten_port={port}\nanonymous_enable=YES\nxferlog_enable=YES\n\
             vsftpd_log_file={}\nsecure_chroot_dir={}\nno_anon_password=YES\nanon_root={}\n",
            log.display(),
            empty.display(),
            empty.display()
        ),
    )
    .unwrap();
    let program = format!("vsftpd {}", directory.path().join("conf").display());
    let _vsftpd = wrap(SOCKET, port, &program, directory.path());
    for n in [1, 2] {
        let (mut one, from) = session_from(client(n), port);
        assert!(one.read_until("\r\n").starts_with("220 "));
        let expected = format!("CONNECT: Client \"{}\"", from.ip());
        wait_until(&expected, || fs::read_to_string(&log).is_ok_and(|log| log.contains(&expected)));
    }
}

#[test]
fn a2_node_and_java_see_who_it_is() {
    let directory = place();
    fs::write(
        directory.path().join("who.js"),
        "require('net').createServer(s => s.end(s.remoteAddress + ' ' + s.remotePort + '\\n'))\
         .listen(+process.argv[2], process.argv[3]);",
    )
    .unwrap();
    fs::write(
        directory.path().join("Who.java"),
        "import java.net.*;\n\
         public class Who { public static void main(String[] args) throws Exception {\n\
         ServerSocket s = new ServerSocket(Integer.parseInt(args[0]));\n\
         while (true) try (Socket c = s.accept()) {\n\
         InetSocketAddress a = (InetSocketAddress) c.getRemoteSocketAddress();\n\
         c.getOutputStream().write((a.getAddress().getHostAddress() + \" \" + a.getPort() + \"\\n\").getBytes());\n\
         } } }\n",
    )
    .unwrap();
    fs::write(directory.path().join("Selects.java"), SELECTS).unwrap();
    for (program, words) in [
        ("node", "who.js PORT 0.0.0.0"),
        ("node", "who.js PORT"),
        ("java", "Who.java PORT"),
        ("java", "Selects.java PORT"),
    ] {
        if !needs(&[program]) {
            continue;
        }
        let port = free_port();
        let line = format!("{program} {}", words.replace("PORT", &port.to_string()));
        let _websockify = wrap(SOCKET, port, &line, directory.path());
        for n in [1, 2] {
            let (mut one, from) = session_from(client(n), port);
            let said = one.read_until("\n");
            let expected = format!("{} {}\n", from.ip(), from.port());
            assert_eq!(said.trim_start_matches("::ffff:"), expected, "{line}");
        }
    }
}

/// `Who.java` with `java.nio`, which has its own accept: with a selector, on a socket that does not block.
const SELECTS: &str = "import java.net.*; import java.nio.*; import java.nio.channels.*;
public class Selects { public static void main(String[] args) throws Exception {
    ServerSocketChannel s = ServerSocketChannel.open();
    s.bind(new InetSocketAddress(Integer.parseInt(args[0]))).configureBlocking(false);
    Selector selector = Selector.open();
    s.register(selector, SelectionKey.OP_ACCEPT);
    while (true) {
        selector.select();
        selector.selectedKeys().clear();
        for (SocketChannel c; (c = s.accept()) != null; c.close()) {
            InetSocketAddress a = (InetSocketAddress) c.getRemoteAddress();
            String who = a.getAddress().getHostAddress() + \" \" + a.getPort() + \"\\n\";
            c.write(ByteBuffer.wrap(who.getBytes()));
        }
    }
} }
";

/// Debian's busybox that is linked dynamically has a web server, and no telnetd.
#[test]
fn a2_busybox_httpd_writes_down_who_came() {
    if !needs(&["busybox"]) {
        return;
    }
    let (directory, port) = (place(), free_port());
    let program = format!("busybox httpd -f -vv -p {port}");
    let httpd = wrap(SOCKET, port, &program, directory.path());
    for n in [1, 2] {
        let (mut one, from) = session_from(client(n), port);
        one.send("GET /x HTTP/1.0\r\n\r\n");
        assert!(one.read_until("\r\n").contains(" 404 "));
        let expected = format!("[::ffff:{}]:{}: url:/x", from.ip(), from.port());
        wait_until(&expected, || httpd.err.text().contains(&expected));
    }
}

/// telnetd calls getpeername(2), and passes the address to the login program that it starts.
#[test]
fn a2_telnetd_tells_the_login_who_came() {
    if !needs(&["in.telnetd"]) || !needs_root() {
        return;
    }
    let (directory, port) = (place(), free_port());
    let login = directory.path().join("login");
    write_script(&login, "#!/bin/sh\necho \"told: $*;\"\nread -r line\n");
    let program = format!("in.telnetd -N -L {} -debug {port}", login.display());
    let options = format!("{SOCKET} --wrap-mode=respawn");
    let _telnetd = wrap(&options, port, &program, directory.path());
    for n in [1, 2] {
        let (mut one, from) = session_from(client(n), port);
        // telnetd sleeps for some seconds first.
        one.be_patient(6 * DEADLINE);
        let mut telnet = Telnet::new(one);
        telnet.read_until("told: ");
        let words = telnet.read_until(";");
        assert!(words.split(' ').any(|word| word == from.ip().to_string()), "{words}");
    }
}

/// A VNC server with a password, behind websockify.
struct Vnc {
    _websockify: Websockify,
    port: u16,
    number: u16,
    _directory: TempDir,
}

impl Vnc {
    fn start(option: &str) -> Self {
        let (directory, number) = (place(), display());
        let port = free_port();
        let password = directory.path().join("passwd");
        let made = format!("echo secret12 | vncpasswd -f >'{}'", password.display());
        assert!(Command::new("sh").args(["-c", &made]).status().unwrap().success());
        let program = format!(
            "Xtigervnc :{number} -rfbport {port} -SecurityTypes VncAuth -PasswordFile {} -BlacklistTimeout 600 -ac",
            password.display()
        );
        let websockify = wrap(option, port, &program, directory.path());
        Self { _websockify: websockify, port, number, _directory: directory }
    }

    /// How the server answers this client with this password: `in`, `wrong` or `shut out`.
    fn try_in(&self, source: Ipv4Addr, password: &str) -> &'static str {
        let (mut one, _) = session_from(source, self.port);
        // The server speaks the oldest version of the protocol to a client that it shuts out (RFC 6143, appendix A).
        if one.read(12) == b"RFB 003.003\n" {
            return "shut out";
        }
        one.send("RFB 003.008\n");
        let types = one.read(1)[0];
        one.read(types.into());
        one.send([2]);
        let challenge = one.read(16).try_into().unwrap();
        one.send(vnc_response(password, challenge));
        if one.read(4) == [0; 4] { "in" } else { "wrong" }
    }
}

impl Drop for Vnc {
    fn drop(&mut self) {
        let _ = fs::remove_file(format!("/tmp/.X{}-lock", self.number));
        let _ = fs::remove_file(format!("/tmp/.X11-unix/X{}", self.number));
    }
}

/// A2: five wrong passwords shut out the client that guesses, and no other; where addresses are hidden, every client.
#[test]
fn a2_tigervnc_shuts_out_the_guesser_and_nobody_else() {
    if !needs(&["Xtigervnc", "vncpasswd"]) {
        return;
    }
    for (option, for_others) in [
        (SOCKET, "in"),
        ("--client-address=loopback", "in"),
        ("--client-address=hidden", "shut out"),
    ] {
        let vnc = Vnc::start(option);
        wait_for("the guesser to be shut out", || {
            (vnc.try_in(client(1), "wrong") == "shut out").then_some(())
        });
        assert_eq!(vnc.try_in(client(1), "secret12"), "shut out", "{option}: the guesser");
        for n in [2, 3] {
            assert_eq!(vnc.try_in(client(n), "secret12"), for_others, "{option}: others");
        }
    }
}
