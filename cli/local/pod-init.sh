#!/bin/sh
# First process of a workload's PID namespace, started in its network namespace and a new mount namespace:
# pod-init.sh STATE_FOLDER RESOLV_CONF. Sets up what the workload sees of the file system, says `ready`, and then stays, so
# that the namespaces do; the workload's command and every `tulle exec` join it. With SIGCHLD ignored the kernel reaps
# whatever is orphaned.
set -eu
state=$1
resolver=$2

mount --make-rprivate /

# Own processes, own network devices; kernel parameters and the control groups of the host are out of reach.
mount -t proc -o nosuid,nodev,noexec proc /proc
for path in /proc/sys /proc/sysrq-trigger; do
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

# Keys, tokens and sockets of the mesh.
mount -t tmpfs -o ro,size=4k,mode=0700 tmpfs "$state"

echo ready
exec env --ignore-signal=CHLD sleep infinity >/dev/null
