_websockify() {
    local i cur prev opts cmd
    COMPREPLY=()
    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
        cur="$2"
    else
        cur="${COMP_WORDS[COMP_CWORD]}"
    fi
    prev="$3"
    cmd=""
    opts=""

    for i in "${COMP_WORDS[@]:0:COMP_CWORD}"
    do
        case "${cmd},${i}" in
            ",$1")
                cmd="websockify"
                ;;
            *)
                ;;
        esac
    done

    case "${cmd}" in
        websockify)
            opts="-v -6 -D -h -V --verbose --traffic --prefer-ipv6 --libserver --auto-pong --unix-listen --unix-listen-mode --inetd --wrap-mode --start --stop-idle --program-port --wrap-timeout --stop-timeout --rebind-engine --program-access --program-user --rebind-lib --web --file-only --run-once --timeout --idle-timeout --drain-timeout --heartbeat --session-timeout --session-idle-timeout --session-expires --subprotocol --record --max-connections --max-memory --trusted-proxy --proxy-protocol --allow-from --max-connections-per-client --cert --key --key-password --key-password-file --ssl-only --ssl-version --ssl-ciphers --verify-client --cafile --auth-plugin --auth-source --auth-source-file --web-auth --unix-target --ssl-target --target-cafile --token-plugin --token-source --token-source-file --target-config --host-token --client-address --target-allow --daemon --user --pid-file --log-file --syslog --legacy-syslog --journald --admin --admin-auth-source-file --help --version"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 1 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --unix-listen)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --unix-listen-mode)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --wrap-mode)
                    COMPREPLY=($(compgen -W "exit ignore respawn" -- "${cur}"))
                    return 0
                    ;;
                --start)
                    COMPREPLY=($(compgen -W "now on-demand" -- "${cur}"))
                    return 0
                    ;;
                --stop-idle)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --program-port)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --wrap-timeout)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --stop-timeout)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --rebind-engine)
                    COMPREPLY=($(compgen -W "auto preload seccomp" -- "${cur}"))
                    return 0
                    ;;
                --program-access)
                    COMPREPLY=($(compgen -W "anyone bridge" -- "${cur}"))
                    return 0
                    ;;
                --program-user)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --rebind-lib)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --web)
                    COMPREPLY=()
                    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
                        compopt -o plusdirs
                    fi
                    return 0
                    ;;
                --timeout)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --idle-timeout)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --drain-timeout)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --heartbeat)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --session-timeout)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --session-idle-timeout)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --subprotocol)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --record)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --max-connections)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --max-memory)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --trusted-proxy)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --allow-from)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --max-connections-per-client)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --cert)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --key)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --key-password)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --key-password-file)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --ssl-version)
                    COMPREPLY=($(compgen -W "default tlsv1_1 tlsv1_2 tlsv1_3" -- "${cur}"))
                    return 0
                    ;;
                --ssl-ciphers)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --cafile)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --auth-plugin)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --auth-source)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --auth-source-file)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --unix-target)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --target-cafile)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --token-plugin)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --token-source)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --token-source-file)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --target-config)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --client-address)
                    COMPREPLY=($(compgen -W "hidden loopback socket proxy-v1 proxy-v2" -- "${cur}"))
                    return 0
                    ;;
                --target-allow)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --user)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --pid-file)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --log-file)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --syslog)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --admin)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --admin-auth-source-file)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
    esac
}

if [[ "${BASH_VERSINFO[0]}" -eq 4 && "${BASH_VERSINFO[1]}" -ge 4 || "${BASH_VERSINFO[0]}" -gt 4 ]]; then
    complete -F _websockify -o nosort -o bashdefault -o default websockify
else
    complete -F _websockify -o bashdefault -o default websockify
fi
