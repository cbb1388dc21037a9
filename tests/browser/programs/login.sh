#!/bin/sh
# Stands for login(1) under in.telnetd -L, so that the test touches no account.
printf 'login: '
read -r name
stty -echo
printf 'Password: '
read -r password
stty echo
printf '\nWelcome, %s (%s letters).\n' "$name" "${#password}"
HOME=/ PS1='wst> ' exec /bin/sh -i
