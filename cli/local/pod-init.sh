#!/bin/sh
# First process of a workload's PID namespace, started in its network namespace and a new mount namespace:
# pod-init.sh STATE_FOLDER RESOLV_CONF. Sets up what the workload sees of the file system, says `ready`, and then stays, so
# that the namespaces do; the workload's command and every `tulle exec` join it. With SIGCHLD ignored the kernel reaps
# whatever is orphaned.
set -eu
state=$1
resolver=$2

mount --make-rprivate /

# Own processes, own network devices; kernel parameters and the control groups of the host are out of reach, also of root,
# who owns these files and needs no capability to write them.
mount -t proc -o nosuid,nodev,noexec proc /proc
for path in /proc/sys /proc/sysrq-trigger /proc/irq /proc/bus /proc/fs /proc/acpi /proc/scsi /proc/mtrr; do
  [ -e "$path" ] || continue
  mount --bind "$path" "$path"
  mount -o remount,bind,ro "$path"
done
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs /sys

# Names are asked of the node, not of a resolver daemon of the host (systemd-resolved, nscd) through its socket.
for path in /run/systemd/resolve /run/nscd; do
  [ ! -d "$path" ] || mount -t tmpfs -o size=64k,mode=0755 tmpfs "$path"
done
target=$(readlink -m /etc/resolv.conf)
if ! [ -e "$target" ]; then
  case $target in
    /run/systemd/resolve/* | /run/nscd/*) : >"$target" ;;
    *)
      echo "/etc/resolv.conf leads to $target, which does not exist: create it, it may be empty" >&2
      exit 1
      ;;
  esac
fi
mount --bind "$resolver" "$target"
mount -o remount,bind,ro "$target"

# Names of network namespaces: whoever may remove one takes the network from under a mesh.
[ ! -d /run/netns ] || mount -t tmpfs -o ro,size=4k,mode=0755 tmpfs /run/netns

# Daemons that do for root whatever it asks.
for path in /run/docker.sock /run/docker /run/containerd /run/crio /run/podman /run/systemd/private /run/dbus; do
  if [ -d "$path" ]; then
    mount -t tmpfs -o ro,size=4k,mode=0755 tmpfs "$path"
  elif [ -e "$path" ]; then
    mount --bind /dev/null "$path"
  fi
done

# Devices that belong to nobody, and the terminals; no disks, where a root without capabilities finds every file. It is put
# together on the state folder, which is covered below, while the host's devices can still be reached, and moved.
devices=$state
mount -t tmpfs -o nosuid,noexec,size=64k,mode=0755 tmpfs "$devices"
for name in null zero full random urandom tty; do
  [ -c "/dev/$name" ] || continue
  : >"$devices/$name"
  mount --bind "/dev/$name" "$devices/$name"
done
mkdir "$devices/pts" "$devices/shm"
[ ! -d /dev/pts ] || mount --bind /dev/pts "$devices/pts"
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs "$devices/shm"
# The host's own, where there is one: that of devpts may be closed to everybody (ptmxmode=000).
if [ -c /dev/ptmx ] && [ ! -L /dev/ptmx ]; then
  : >"$devices/ptmx"
  mount --bind /dev/ptmx "$devices/ptmx"
else
  ln -s pts/ptmx "$devices/ptmx"
fi
ln -s /proc/self/fd "$devices/fd"
ln -s /proc/self/fd/0 "$devices/stdin"
ln -s /proc/self/fd/1 "$devices/stdout"
ln -s /proc/self/fd/2 "$devices/stderr"
mount --move "$devices" /dev

# Keys, tokens and sockets of the mesh.
mount -t tmpfs -o ro,size=4k,mode=0700 tmpfs "$state"

echo ready
exec env --ignore-signal=CHLD sleep infinity >/dev/null
