complete -c websockify -l unix-listen -d 'Unix socket to listen on instead of a port [default: none]' -r -F
complete -c websockify -l unix-listen-mode -d 'Who may connect to it, as chmod has it [default: 600]' -r
complete -c websockify -l wrap-mode -d 'When it exits or daemonizes: exit, ignore or respawn [default: exit]' -r -f -a "exit\t''
ignore\t''
respawn\t''"
complete -c websockify -l start -d 'When it is started: now, or on-demand of a client [default: now]' -r -f -a "now\t''
on-demand\t'When the first client comes'"
complete -c websockify -l stop-idle -d 'Stop it after so long without a session [default: never]' -r
complete -c websockify -l program-port -d 'Port that it binds [default: SOURCE_PORT]' -r
complete -c websockify -l wrap-timeout -d 'Seconds that a client waits for it to listen [default: 30]' -r
complete -c websockify -l stop-timeout -d 'Seconds that it may take to end before SIGKILL [default: 10]' -r
complete -c websockify -l rebind-engine -d 'What moves its port: auto, preload or seccomp [default: auto]' -r -f -a "auto\t'Whichever reaches the program'
preload\t'`rebind.so`, loaded into it'
seccomp\t'The kernel, which asks us'"
complete -c websockify -l program-access -d 'Whom it serves: anyone or bridge, us alone [default: anyone]' -r -f -a "anyone\t''
bridge\t'The bridge\'s alone'"
complete -c websockify -l program-user -d 'User[:group] that it runs as, where we are root [default: ours]' -r
complete -c websockify -l rebind-lib -d 'Library to preload [default: the installed or built-in one]' -r -F
complete -c websockify -l web -d 'Directory to serve files from, on the same port [default: none]' -r -f -a "(__fish_complete_directories)"
complete -c websockify -l timeout -d 'Exit after so long, once no session is left' -r
complete -c websockify -l idle-timeout -d 'Exit after so long without a session; 0: never' -r
complete -c websockify -l drain-timeout -d 'Let sessions go on so long when stopped' -r
complete -c websockify -l heartbeat -d 'Ping each client so often; 0: never' -r
complete -c websockify -l session-timeout -d 'End each session after so long; 0: never' -r
complete -c websockify -l session-idle-timeout -d 'End a session idle for so many seconds; 0: never' -r
complete -c websockify -l subprotocol -d 'Sub-protocols to confirm before binary [default: none]' -r
complete -c websockify -l record -d 'Record each session to FILE.N [default: off]' -r -F
complete -c websockify -l max-connections -d 'Client connections open at once [default: 20000]' -r
complete -c websockify -l max-memory -d 'MiB kept for clients in all [default: a quarter of ours]' -r
complete -c websockify -l trusted-proxy -d 'Where trusted proxies come from: CIDR, unix [default: none]' -r
complete -c websockify -l allow-from -d 'Where clients may come from: CIDR, unix [default: anywhere]' -r
complete -c websockify -l max-connections-per-client -d 'Connections of one client open at once [default: any number]' -r
complete -c websockify -l cert -d 'Our certificate and its chain in PEM [default: self.pem]' -r -F
complete -c websockify -l key -d 'Its key in PEM [default: in the same file]' -r -F
complete -c websockify -l key-password -d 'Password of the key; a file is safer [default: none]' -r
complete -c websockify -l key-password-file -d 'File with it in the first line [default: none]' -r -F
complete -c websockify -l ssl-version -d 'Oldest: tlsv1_1, tlsv1_2 or tlsv1_3 [default: tlsv1_2]' -r -f -a "default\t''
tlsv1_1\t''
tlsv1_2\t''
tlsv1_3\t''"
complete -c websockify -l ssl-ciphers -d 'Cipher suites, as OpenSSL calls them [default: all]' -r
complete -c websockify -l cafile -d 'Authorities for those, in PEM [default: the system\'s]' -r -F
complete -c websockify -l auth-plugin -d 'BasicHTTPAuth|ClientCertCNAuth|ExpectOrigin|Helper [default: none]' -r
complete -c websockify -l auth-source -d 'Its user:password, names, origins or program [default: none]' -r
complete -c websockify -l auth-source-file -d 'File with LIST in it, read again on SIGHUP [default: none]' -r -F
complete -c websockify -l unix-target -d 'Unix socket to bridge to, instead of TARGET_ADDR [default: none]' -r -F
complete -c websockify -l target-cafile -d 'Authorities for that, in PEM [default: the system\'s]' -r -F
complete -c websockify -l token-plugin -d 'What knows where tokens lead, as TokenFile does [default: none]' -r
complete -c websockify -l token-source -d 'What that asks: file, URL, server or program [default: none]' -r
complete -c websockify -l token-source-file -d 'File with ARG in it, read again on SIGHUP [default: none]' -r -F
complete -c websockify -l target-config -d 'The same as TokenFile with this source [default: none]' -r -F
complete -c websockify -l client-address -d 'hidden, loopback, socket, proxy-v1 or proxy-v2 [default: hidden]' -r -f -a "hidden\t'Our address'
loopback\t'An address in 127/8 for each client'
socket\t'The client\'s own, in the wrapped program'
proxy-v1\t'A header ahead of the bytes'
proxy-v2\t''"
complete -c websockify -l target-allow -d 'Where they may lead: CIDR or NAME[:PORTS], unix:DIR [default: all]' -r
complete -c websockify -l user -d 'Give up root for this user after the start [default: never]' -r
complete -c websockify -l pid-file -d 'File for our process id, locked while we run [default: none]' -r -F
complete -c websockify -l log-file -d 'File to append the log to, beside stderr [default: none]' -r -F
complete -c websockify -l syslog -d 'Log to syslog: /dev/log, or HOST:PORT by UDP [default: none]' -r
complete -c websockify -l admin -d 'Health and metrics: LOOPBACK:PORT, unix:FILE [default: none]' -r
complete -c websockify -l admin-auth-source-file -d 'File with the user:password for that [default: none]' -r -F
complete -c websockify -s v -l verbose -d 'Say more: debug messages and traffic letters [default: off]'
complete -c websockify -l traffic -d 'Say which way each frame goes, by a letter [default: off]'
complete -c websockify -s 6 -l prefer-ipv6 -d 'IPv6 addresses of SOURCE_ADDR before its others [default: off]'
complete -c websockify -l libserver -d 'Taken for older command lines; changes nothing [default: off]'
complete -c websockify -l auto-pong -d 'Taken for older command lines; changes nothing [default: off]'
complete -c websockify -l inetd -d 'Serve what inetd passes as standard input [default: off]'
complete -c websockify -l file-only -d 'List no directories [default: off]'
complete -c websockify -l run-once -d 'Serve a single session and exit [default: off]'
complete -c websockify -l session-expires -d 'End each session when its JSON Web Token expires [default: off]'
complete -c websockify -l proxy-protocol -d 'They send PROXY headers before connections [default: off]'
complete -c websockify -l ssl-only -d 'Refuse unencrypted clients [default: off]'
complete -c websockify -l verify-client -d 'Demand a certificate of every client [default: off]'
complete -c websockify -l web-auth -d 'Ask for it at web requests too [default: off]'
complete -c websockify -l ssl-target -d 'Speak TLS to the target, and verify it [default: off]'
complete -c websockify -l host-token -d 'Take the host of a request for its token [default: off]'
complete -c websockify -s D -l daemon -d 'Run in the background, once the bridge is up [default: off]'
complete -c websockify -l legacy-syslog -d 'Speak RFC 3164 to it instead of RFC 5424 [default: off]'
complete -c websockify -l journald -d 'Log to the journal [default: if stderr is the journal, or -D]'
complete -c websockify -s h -l help -d 'Print help'
complete -c websockify -s V -l version -d 'Print version'
