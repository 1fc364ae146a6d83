#!/bin/busybox sh
# Init of the rig: modules, disks, then the command. Its output goes to the first virtio port, its exit code to the
# second; then the machine powers itself off.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
exec </dev/null >/dev/console 2>&1

while read -r file options; do
    case $file in
    # A processor that waits must not spin for it: the emulator has no more processors than this.
    kvm.ko) options="$options halt_poll_ns=0" ;;
    kvm-amd.ko) options="$options nested=0" ;;
    esac
    # shellcheck disable=SC2086 # options are words
    insmod "/modules/$file" $options || echo "rig: the module $file does not load"
done </modules/order

port() { echo /dev/vport*p"$1"; }
exec 8>"$(port 1)" 9>"$(port 2)"

finish() { # exit code
    echo "$1" >&9
    poweroff -f
}

disk() { # serial number
    for block in /sys/block/vd*; do
        [ "$(cat "$block/serial" 2>/dev/null)" != "$1" ] || echo "/dev/${block##*/}"
    done
}

new=/root
if [ -n "$(disk root)" ]; then
    mount -t ext4 -o noatime,nobarrier "$(disk root)" $new || finish 125
    mkdir -p $new/payload
else
    new=''
fi
if [ -n "$(disk payload)" ]; then
    mount -t ext4 -o noatime "$(disk payload)" $new/payload || finish 125
    at=$(cat /rig-payload-at)
    if [ -n "$at" ]; then
        mkdir -p "$new$at"
        mount -o bind $new/payload "$new$at" || finish 125
    fi
fi

ip link set lo up
hostname rig
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666,mode=620,gid=5 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -sf /proc/self/fd /dev/fd
# As on a host whose users are in the group kvm.
[ ! -e /dev/kvm ] || chmod 666 /dev/kvm
if [ -n "$new" ]; then
    for dir in dev proc sys; do mount -o move /$dir $new/$dir; done
    mount -t tmpfs -o mode=755 tmpfs $new/run
    mount -t tmpfs -o mode=1777 tmpfs $new/tmp
    cp /rig-command $new/run/
    # A machine with a CPU that never runs. The kernel rewrites its scheduler when the first machine comes and when the
    # last one goes (static keys preempt_notifier_key and apic_sw_disabled); the emulator sometimes goes on executing the
    # breakpoint that was there in between, and then both processors do nothing else for ever.
    cat >$new/run/hold-a-machine <<'PERL'
open(my $kvm, "+<", "/dev/kvm") or die "rig: /dev/kvm: $!\n";
my $machine = ioctl($kvm, 0xAE01, 0) or die "rig: KVM_CREATE_VM: $!\n";
open(my $vm, "+<&=", $machine) or die "rig: the machine: $!\n";
ioctl($vm, 0xAE60, 0) or die "rig: KVM_CREATE_IRQCHIP: $!\n";
ioctl($vm, 0xAE41, 0) or die "rig: KVM_CREATE_VCPU: $!\n";
sleep 1000 while 1;
PERL
    # Over the old root, not below it: a process in a mere chroot may not make user namespaces.
    (cd $new && mount -o move . / &&
        HOME=/root exec chroot . /bin/sh -c 'perl /run/hold-a-machine & sleep 1; exec /bin/sh /run/rig-command') >&8 2>&8
else
    HOME=/tmp sh /rig-command >&8 2>&8
fi
finish $?
