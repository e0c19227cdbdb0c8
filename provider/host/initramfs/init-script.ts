/**
 * The init of our initramfs, a busybox shell script: it does what the kernel does by itself where the drivers are
 * built in, from the same command line. It is a text in this module because the compiler copies no other files.
 *
 * What it follows: fs/nfs/nfsroot.c and net/ipv4/ipconfig.c of the kernel, Documentation/admin-guide/nfs/nfsroot.rst,
 * init/main.c for the choice of init.
 */

/** Begins every line that the script writes to the console. */
export const initramfsLinePrefix = "microvm-initramfs: ";

/** Programs of busybox that the scripts call. */
export const initApplets = [
  "cat",
  "echo",
  "hostname",
  "ifconfig",
  "insmod",
  "ip",
  "mkdir",
  "mount",
  "readlink",
  "sed",
  "sh",
  "sleep",
  "stty",
  "switch_root",
  "udhcpc",
  "umount",
] as const;

/** `/init`. Its variables begin with `boot_`, as unknown words of the command line arrive as exported variables. */
export const initScript = `#!/bin/sh
# Mounts the root that the kernel command line names, and starts its init. Runs as process 1.
set -f
PATH=/bin

say() { echo "${initramfsLinePrefix}$*"; }

fail() {
  say "error: $*"
  # The kernel panics when process 1 ends; what the console had not sent by then would be lost, so wait for it.
  stty -F /dev/console sane 2>/dev/null
  exit 1
}

# try WHAT COMMAND...: runs a command; if it fails, its own words are reported.
try() {
  boot_what=$1
  shift
  boot_said=$("$@" 2>&1) || fail "$boot_what: $boot_said"
}

# wait_until TENTHS TEST...: polls a condition, at most so many tenths of a second.
wait_until() {
  boot_tenths=$1
  shift
  until "$@"; do
    [ "$boot_tenths" -gt 0 ] || return 1
    boot_tenths=$((boot_tenths - 1))
    sleep 0.1
  done
}

load_modules() {
  while read -r boot_module boot_need; do
    boot_said=$(insmod "/modules/$boot_module.ko" 2>&1) || [ "$boot_need" = optional ] ||
      fail "loading the module $boot_module: $boot_said"
  done </modules/order
}

# Quoted values may hold blanks; none of the words wanted here is ever quoted. As in the kernel, the last one wins.
read_command_line() {
  boot_root= boot_nfsroot= boot_ip= boot_init= boot_type= boot_flags= boot_mode=ro
  for boot_word in $(sed 's/"[^"]*"//g; s/".*//' /proc/cmdline); do
    case $boot_word in
      root=*) boot_root=\${boot_word#*=} ;;
      nfsroot=*) boot_nfsroot=\${boot_word#*=} ;;
      ip=* | nfsaddrs=*) boot_ip=\${boot_word#*=} ;;
      init=*) boot_init=\${boot_word#*=} ;;
      rootfstype=*) boot_type=\${boot_word#*=} ;;
      rootflags=*) boot_flags=,\${boot_word#*=} ;;
      ro | rw) boot_mode=$boot_word ;;
      --) break ;;
    esac
  done
}

has_carrier() { [ "$(cat "/sys/class/net/$1/carrier" 2>/dev/null)" = 1 ]; }

# The named interface, or the first that is not the loopback.
find_interface() {
  boot_interface=$1
  if [ -z "$boot_interface" ]; then
    set +f
    for boot_found in /sys/class/net/*; do
      boot_found=\${boot_found##*/}
      case $boot_found in lo | '*') ;; *) boot_interface=$boot_found && break ;; esac
    done
    set -f
  fi
  [ -n "$boot_interface" ] || fail "there is no network interface"
  wait_until 50 [ -e "/sys/class/net/$boot_interface" ] || fail "there is no network interface $boot_interface"
}

# Configures the network from ip=CLIENT:SERVER:GATEWAY:NETMASK:HOST:DEVICE:AUTOCONF:DNS0:DNS1, or ip=dhcp.
configure_network() {
  try "starting the loopback interface" ifconfig lo 127.0.0.1 up
  case $boot_ip in
    *:*) ;;
    '') fail "an NFS root needs ip= on the kernel command line" ;;
    off | none) return ;;
    *) boot_ip=::::::$boot_ip ;;
  esac
  boot_ifs=$IFS
  IFS=:
  set -- $boot_ip
  IFS=$boot_ifs
  boot_client=$1 boot_server=$2 boot_gateway=$3 boot_netmask=$4 boot_host=$5 boot_auto=$7 boot_dns="$8 $9" boot_domain=
  find_interface "$6"
  if [ -n "$boot_client" ] && [ "$boot_client" != 0.0.0.0 ]; then
    try "giving $boot_interface the address $boot_client" \\
      ifconfig "$boot_interface" "$boot_client" \${boot_netmask:+netmask "$boot_netmask"} up
    [ -z "$boot_gateway" ] || [ "$boot_gateway" = 0.0.0.0 ] ||
      try "adding the gateway $boot_gateway" ip route replace default via "$boot_gateway" dev "$boot_interface"
    wait_until 50 has_carrier "$boot_interface" || fail "$boot_interface has no link"
  else
    case $boot_auto in
      '' | dhcp | on | any | both) ask_dhcp ;;
      *) fail "ip=$boot_ip: $boot_auto is not known here; give an address, or dhcp" ;;
    esac
  fi
  # As the kernel does, the address stands in for a missing name.
  try "setting the host name" hostname "\${boot_host:-$boot_client}"
  # What the kernel shows in /proc/net/pnp. /dev is the same in every mount of devtmpfs, so a guest finds it there.
  mkdir -p /dev/microvm
  {
    [ -z "$boot_domain" ] || echo "domain $boot_domain"
    for boot_word in $boot_dns; do [ "$boot_word" = 0.0.0.0 ] || echo "nameserver $boot_word"; done
    [ -z "$boot_server" ] || echo "bootserver $boot_server"
  } >/dev/microvm/resolv.conf
}

ask_dhcp() {
  try "starting $boot_interface" ifconfig "$boot_interface" up
  wait_until 50 has_carrier "$boot_interface" || fail "$boot_interface has no link"
  mkdir -p /lease
  udhcpc -f -n -q -t 5 -T 3 -i "$boot_interface" -s /dhcp >/lease/log 2>&1 && [ -s /lease/ip ] ||
    fail "no DHCP server answered on $boot_interface (ip=dhcp): $(sed -n '$p' /lease/log)"
  boot_client=$(cat /lease/ip)
  boot_dns=$(cat /lease/dns)
  boot_domain=$(cat /lease/domain)
  boot_server=\${boot_server:-$(cat /lease/siaddr)}
  boot_host=\${boot_host:-$(cat /lease/hostname)}
}

# Mounts nfsroot=[SERVER:]PATH[,OPTIONS]. Without mountport= the kernel's NFS client asks rpcbind, as it does for itself.
mount_nfs() {
  [ -n "$boot_nfsroot" ] || fail "root=/dev/nfs needs nfsroot=SERVER:PATH on the kernel command line"
  configure_network
  boot_path=\${boot_nfsroot%%,*}
  boot_options=
  case $boot_nfsroot in *,*) boot_options=,\${boot_nfsroot#*,} ;; esac
  case $boot_path in
    *:*) boot_server=\${boot_path%%:*} boot_path=\${boot_path#*:} ;;
    *) [ -n "$boot_server" ] || fail "nfsroot=$boot_nfsroot names no server, and neither does ip=" ;;
  esac
  boot_source=$boot_server:$boot_path
  # The kernel puts its defaults before the options of the command line, and nolock behind them.
  boot_options=$boot_mode,vers=3,tcp$boot_options,nolock
  boot_tries=3
  until boot_said=$(mount -t nfs -o "$boot_options" "$boot_source" /newroot 2>&1); do
    boot_tries=$((boot_tries - 1))
    [ "$boot_tries" -gt 0 ] || fail "mounting $boot_source with $boot_options: $boot_said"
    say "trying again: $boot_said"
    sleep 1
  done
  say "mounted root (nfs) $boot_source"
}

# Mounts a disk; with a second one, the first stays read-only below it (overlayfs).
mount_disk() {
  [ -z "$boot_ip" ] || configure_network
  wait_until 100 [ -b "$boot_root" ] || fail "there is no disk $boot_root"
  boot_over= boot_target=/newroot
  if [ "$boot_root" = /dev/vda ] && [ -b /dev/vdb ]; then boot_over=/dev/vdb boot_target=/lower boot_mode=ro; fi
  try "mounting $boot_root" mount \${boot_type:+-t "$boot_type"} -o "$boot_mode$boot_flags" "$boot_root" "$boot_target"
  boot_type=$(sed -n "s|^[^ ]* $boot_target \\([^ ]*\\) .*|\\1|p" /proc/mounts)
  if [ -n "$boot_over" ]; then
    try "mounting the stateful disk $boot_over" mount -t ext4 -o rw "$boot_over" /stateful
    try "preparing $boot_over" mkdir -p /stateful/upper /stateful/work
    try "laying $boot_over over $boot_root" \\
      mount -t overlay -o lowerdir=/lower,upperdir=/stateful/upper,workdir=/stateful/work overlay /newroot
    say "laid $boot_over over $boot_root"
  fi
  boot_source=$boot_root
  say "mounted root ($boot_type) $boot_root"
}

# Finds what a path leads to in the new root. Links are followed there: an absolute one begins at the new root.
find_in_root() {
  boot_rest=$1 boot_at= boot_links=0
  while [ -n "$boot_rest" ]; do
    boot_part=\${boot_rest%%/*}
    case $boot_rest in */*) boot_rest=\${boot_rest#*/} ;; *) boot_rest= ;; esac
    case $boot_part in
      '' | .) continue ;;
      ..) boot_at=\${boot_at%/*} && continue ;;
    esac
    if [ -L "/newroot$boot_at/$boot_part" ]; then
      boot_links=$((boot_links + 1))
      [ "$boot_links" -le 40 ] || break
      boot_link=$(readlink "/newroot$boot_at/$boot_part")
      case $boot_link in /*) boot_at= ;; esac
      boot_rest=$boot_link/$boot_rest
    else
      boot_at=$boot_at/$boot_part
    fi
  done
}

is_program() { [ -f "/newroot$boot_at" ] && [ -x "/newroot$boot_at" ]; }

# One that is there and is no program ends the boot: the next would not be the init that was meant.
choose_init() {
  if [ -n "$boot_init" ]; then
    find_in_root "$boot_init"
    is_program || fail "init=$boot_init is not an executable file in $boot_source"
    return
  fi
  for boot_init in /sbin/init /etc/init /bin/init /bin/sh; do
    find_in_root "$boot_init"
    [ -e "/newroot$boot_at" ] || continue
    is_program || fail "the init program $boot_init is not an executable file in $boot_source"
    return
  done
  fail "there is no executable /sbin/init, /etc/init, /bin/init or /bin/sh in $boot_source"
}

try "mounting /proc" mount -t proc proc /proc
try "mounting /sys" mount -t sysfs sysfs /sys
try "mounting /dev" mount -t devtmpfs devtmpfs /dev
read_command_line
load_modules
case $boot_root in
  /dev/nfs) mount_nfs ;;
  /dev/*) mount_disk ;;
  *) fail "root=$boot_root: only /dev/nfs and a disk, as /dev/vda, are known here" ;;
esac
choose_init

# The kernel leaves /dev mounted, and neither /proc nor /sys; nor does it pass on words that it understands itself.
if [ -d /newroot/dev ]; then try "moving /dev" mount -o move /dev /newroot/dev; fi
umount /sys
umount /proc
unset ip nfsaddrs nfsroot PATH PWD OLDPWD SHLVL
say "starting $boot_init"
exec /bin/switch_root /newroot "$boot_init" "$@"
`;

/** `/dhcp`, which udhcpc calls with what a server gave. */
export const dhcpScript = `#!/bin/sh
# Configures the interface from a DHCP lease, and keeps what else it says in /lease.
set -f
PATH=/bin
[ "$1" = bound ] || exit 0
ifconfig "$interface" "$ip" \${subnet:+netmask "$subnet"} up || exit 1
for gateway in $router; do
  ip route replace default via "$gateway" dev "$interface"
  break
done
echo "$dns" >/lease/dns
echo "$domain" >/lease/domain
echo "$hostname" >/lease/hostname
echo "$siaddr" >/lease/siaddr
echo "$ip" >/lease/ip
`;
