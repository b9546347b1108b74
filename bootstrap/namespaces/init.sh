# The init of one host of hosts.py: builds the host's root folder, enters it, says "ready", and then only reaps until
# its standard input ends.
#
#   init.sh PYTHON NAME BASE SHM-SIZE ro|rw [FOLDER...]
#
# Runs as PID 1 of new PID, mount, UTS, network and IPC namespaces, as root there: of the machine, or only of a user
# namespace. BASE holds hosts, resolv.conf, nsswitch.conf and an empty root/; BASE/../shared becomes /shared. The
# FOLDERs are seen although they lie below /tmp or /run.
set -eu
PATH=$PATH:/usr/sbin:/sbin # pivot_root, which is not on every user's
python=$1 name=$2 base=$3 shm_size=$4 access=$5
shift 5
new=$base/root

# Not by /proc/sys/kernel/hostname, which only the machine's root may write.
"$python" -ISc 'import socket, sys; socket.sethostname(sys.argv[1])' "$name"

# A new root on a tmpfs with this machine's folders in it: /shared can be made without touching the machine's own root,
# and /tmp and /run start empty. Unbindable, or the recursive binds below would take it along into itself.
mount -t tmpfs -o mode=755 rb-root "$new"
mount --make-unbindable "$new"
for path in /* /.[!.]*; do
    entry=${path#/}
    case $entry in proc | sys | run | tmp | shared) continue ;; esac
    if [ -L "$path" ]; then
        ln -s "$(readlink "$path")" "$new/$entry"
    elif [ -d "$path" ]; then
        mkdir "$new/$entry"
        mount --rbind "$path" "$new/$entry"
    elif [ -e "$path" ]; then
        : >"$new/$entry"
        mount --bind "$path" "$new/$entry"
    fi
done
mkdir "$new/proc" "$new/sys" "$new/run" "$new/tmp" "$new/tmp/home" "$new/shared"
chmod 1777 "$new/tmp"
mount -t proc proc "$new/proc"
# A sysfs of its own shows the interfaces of this network namespace.
if mount -t sysfs sysfs "$new/sys"; then
    mount --rbind /sys/fs/cgroup "$new/sys/fs/cgroup"
else
    mount --rbind /sys "$new/sys"
fi
mount -t tmpfs -o "size=$shm_size,mode=1777" shm "$new/dev/shm"
mount --bind "$base/../shared" "$new/shared"
for folder in "$@"; do
    mkdir -p "$new$folder"
    mount --rbind "$folder" "$new$folder"
done

# As in a container: binds, which can be written in place but not replaced by rename.
for file in hosts resolv.conf nsswitch.conf; do
    target=$new$(readlink -f "/etc/$file")
    case $target in
        "$new"/run/* | "$new"/tmp/*) mkdir -p "${target%/*}" && : >"$target" ;; # systemd's resolv.conf is a link to there
    esac
    if [ "$file" = nsswitch.conf ] && [ ! -e "$target" ]; then continue; fi
    mount --bind "$base/$file" "$target"
    if [ "$file $access" = "hosts ro" ]; then mount -o remount,bind,ro,nosuid,nodev "$target"; fi
done

cd "$new"
mkdir .old
pivot_root . .old
cd /
umount -l /.old
rmdir /.old
mount --make-private /
echo ready
# An ignored SIGCHLD stays ignored across exec, and then the kernel itself reaps what is re-parented here.
exec env --ignore-signal=CHLD cat >/dev/null
