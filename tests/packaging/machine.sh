#!/bin/sh
# Becomes systemd, process 1 of a machine of its own: this system as it is, with the package installed. What is
# written there stays in memory. Started in namespaces of its own by machine.rs.
#
#     machine.sh DIRECTORY PACKAGE ACTOR
set -eu
directory=$1 package=$2 actor=$3

mount -t tmpfs tmpfs "$directory"
cd "$directory"
mkdir root upper work
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root
install "$package" root/websockify.deb
install -D "$actor" root/usr/local/bin/actor

mount -t proc proc root/proc
# The network is that of the system outside, and so are the settings of network and kernel. They are read-only here, because
# systemd would change them.
mount --bind root/proc/sys root/proc/sys
mount -o remount,bind,ro root/proc/sys
mount --bind /sys root/sys
mount -t cgroup2 cgroup2 root/sys/fs/cgroup
mount --rbind /dev root/dev
mount -t tmpfs -o mode=755 tmpfs root/run
mount -t tmpfs -o mode=1777 tmpfs root/tmp

# No unit of this system is started but what a bridge needs.
rm -rf root/var/log/journal root/etc/systemd root/etc/default/websockify root/etc/websockify
mkdir -p root/etc/systemd/system root/run/units/sysinit.target.wants
for unit in basic.target multi-user.target network-online.target network.target nss-lookup.target \
    paths.target shutdown.target slices.target sockets.target sysinit.target timers.target umount.target \
    systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket; do
    ln -s "/usr/lib/systemd/system/$unit" root/run/units/
done
ln -s /run/units/systemd-journald.service root/run/units/sysinit.target.wants/
printf '[Journal]\nStorage=volatile\nReadKMsg=no\n' >root/etc/systemd/journald.conf

# No index of the manual pages is made anew each time.
rm -f root/var/lib/man-db/auto-update
# Debian's own websockify is removed, where it is installed.
chroot root dpkg --force-depends --remove websockify python3-websockify >&2
chroot root dpkg --force-unsafe-io --install /websockify.deb
for unit in websockify.service websockify.socket websockify@.service; do
    ln -s "/usr/lib/systemd/system/$unit" root/run/units/
done

cd root
pivot_root . mnt
umount -l /mnt
exec env -i container=websockify PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/units /lib/systemd/systemd \
    --system --unit=multi-user.target --log-target=journal --show-status=0
