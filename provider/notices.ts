/**
 * Every notice: a line that a preview or an up shows beside its steps, and that fails nothing. The table holds the texts;
 * MESSAGES.md is generated from it.
 */

/** What every notice of one code has in common. */
export interface NoticeKind {
  /** The line; names in braces stand for values. */
  readonly text: string;
  /** When it shows, in one sentence. */
  readonly cause: string;
  /** What the person can do about it, in one sentence. */
  readonly remedy: string;
}

const NOTHING = "Nothing has to be done.";

/** Every notice code, with its text, cause and remedy. */
export const noticeKinds = {
  "command-line": {
    text: "{vm}: kernel command line: {cmdline}",
    cause: "A VM is new, or its kernel command line changes; the engine cuts it short where it shows inputs.",
    remedy: "Read it before saying yes.",
  },
  "server-is-this-host": {
    text: "nfsServer {server} is this host; a guest reaches it as {address}",
    cause: "A loopback address would be the guest's own.",
    remedy: NOTHING,
  },
  "server-alone": {
    text: "{vm}: the guest reaches nfsServer {server} as {address}, and nothing else",
    cause: 'A VM with `guestAccess: "nfs-only"` is new, or its kernel command line changes.',
    remedy: NOTHING,
  },
  "preflight-warning": {
    text: "{vm}: warning: {input}: {finding}",
    cause:
      "Preflight found what may or will keep a guest from booting, and this up boots none, or it is not certain, or `preflight` is `warn`.",
    remedy: "As the finding says; it is one of the errors below.",
  },
  "not-checked-yet": {
    text: "{vm}: not checked in this preview: {checks}",
    cause: "Inputs are not known before something else in the program is made.",
    remedy: "Nothing has to be done: the up checks it as soon as they are known.",
  },
  "initramfs-made": {
    text: "{vm}: kernel: boots with an initramfs made from its modules, since {lacks}",
    cause: "The kernel cannot reach this root by itself, and its modules can.",
    remedy: "Nothing has to be done: a kernel with these options built in boots without it, and faster.",
  },
  "kernel-remark": {
    text: "{vm}: kernel: {remark}",
    cause: "The kernel boots, and lacks something that will be missed later.",
    remedy: "Use a kernel with the named option if it matters to you.",
  },
  "kernel-unchecked": {
    text: "{vm}: kernel: not checked whether it can mount the root: {reason}",
    cause: "The kernel's configuration is neither in its image nor beside it.",
    remedy: "Put the kernel's config-RELEASE beside it, or trust the kernel.",
  },
  "source-kept": {
    text: "{vm}: {input}: {finding} (the VM keeps what it was made from)",
    cause: "A file or server that an unchanged VM was made from is no longer there.",
    remedy: "Bring it back before the VM has to be made again.",
  },
  "disk-dropped": {
    text: "{vm}: the replace drops the stateful disk of {size} MiB and all that is on it.",
    cause: "A replace makes a new VM, and the stateful disk goes with the old one.",
    remedy: "Copy what you need out of the guest first, or leave out what makes it a replace.",
  },
  "disk-grows": {
    text: "{vm}: the disk grows at once, its file system at the next start of the VM.",
    cause: "`statefulDiskMiB` grew.",
    remedy: "Stop and start the VM (`powerState`) to use the new space.",
  },
  "made-elsewhere": {
    text: "{vm}: not checked: it was made on another host ({host}), whose {folder} is not here",
    cause: "The state directory is not the one in which the VM was made.",
    remedy: "Run on that host; if it is gone for good, `microvm forget NAME` gives the VM up.",
  },
  "folder-elsewhere": {
    text: "{vm}: not checked: its state directory {folder} is not on this host",
    cause: "The state directory is not there, so nothing can be said of the VM.",
    remedy: "Run on the host that has it; if it is gone for good, `microvm forget NAME` gives the VM up.",
  },
  "not-observed": {
    text: "{vm}: not checked: {finding}",
    cause: "What is there of the VM could not be found out.",
    remedy: "As the finding says; it is one of the errors below.",
  },
  waiting: {
    text: "{vm}: waiting for {what}",
    cause: "A guest is booting; the line comes when what is waited for changes, and every 5 s.",
    remedy: "Nothing has to be done: `readiness.timeoutSeconds` bounds it.",
  },
  "waiting-for-creator": {
    text: "{vm}: waiting for process {pid}, which makes the same VM",
    cause: "Another `pulumi up` is making the same resource.",
    remedy: "Nothing has to be done: after 15 s it is an error.",
  },
  "server-later": {
    text: "{vm}: not asked of the server in this preview: what it would boot ({missing} not known yet)",
    cause: "Inputs of a VM on a server are not known before something else in the program is made.",
    remedy: "Nothing has to be done: the up asks as soon as they are known.",
  },
  "server-unchecked": {
    text: "{vm}: kernel, root and command line cannot be checked from here: the server at {url} does not tell",
    cause: "An Arrakis server boots what it is asked for, and says nothing about it before.",
    remedy: "Nothing has to be done: the up asks the guest what its root is.",
  },
  "asks-server": {
    text: "{vm}: asks {url} to boot it; a server answers when the guest is up, or after a minute",
    cause: "A VM is made on the back end `arrakis`.",
    remedy: NOTHING,
  },
  "root-unverified": {
    text: "{vm}: warning: the server runs the guest, which could not be asked what its root is: {reason}",
    cause: "The guest has no command server, or it does not answer within `readiness.timeoutSeconds`.",
    remedy: "Start one in the guest, or set `readiness.required` to make this an error.",
  },
  "reclaimed-on-server": {
    text: "{vm}: the VM that an interrupted create left at {url} was removed; it is made anew",
    cause: "An earlier engine was killed during a create, and this up makes the VM anew.",
    remedy: NOTHING,
  },
  reclaimed: {
    text: "{vm}: the VM of an interrupted create ({created}) {ended}; its folder and disks are kept in {folder}",
    cause: "An earlier engine was killed during a create, and this up makes the VM anew.",
    remedy: "Remove the folder once nothing in it is needed.",
  },
  "powering-off": {
    text: "{vm}: waiting for the guest to power off (at most {seconds} s)",
    cause: "The VM is stopped, replaced or deleted; its guest heard the power button.",
    remedy: "Nothing has to be done: `shutdownTimeoutSeconds` bounds it.",
  },
  "power-off-forced": {
    text: "{vm}: the guest did not power off in time; ending it",
    cause: "The guest ignored the power button, or took longer than `shutdownTimeoutSeconds`.",
    remedy:
      "Run something in the guest that hears the power button (acpid, systemd), or raise the time. An `initramfs` of your own has to load the modules `button` and `evdev` of a kernel that has them as such; one that is made for the VM does.",
  },
  "file-system-grows": {
    text: "growing the file system of the stateful disk {path}",
    cause: "The disk has grown since the VM was last started; its ext4 follows before the guest runs.",
    remedy: NOTHING,
  },
  "file-system-kept": {
    text: "the file system of the stateful disk {path} keeps its size: {words}",
    cause: "The stateful disk grew, and its file system could not be grown with it.",
    remedy: "See what e2fsck or resize2fs said; what is on the disk is as it was.",
  },
  "root-stale": {
    text: "{vm}: the NFS server does not know the guest's root any more (stale file handle): the guest cannot go on, and the VM is made anew",
    cause:
      "The server was restarted and gives out new file handles (as AgentFS does), or the exported folder was replaced; what the guest has open is lost to it.",
    remedy: "Nothing has to be done: the up replaces the VM, as it would one that is gone.",
  },
  "vm-gone": {
    text: "{vm}: there is no such VM any more; it is made anew",
    cause:
      "The VM was removed or given up outside Pulumi (`microvm rm`, `microvm forget`), or another stack has the name by now.",
    remedy: "Nothing has to be done: the up makes the VM anew.",
  },
  "vm-damaged": {
    text: "{vm}: the VM is not whole any more (a file that its start needs is missing, or a create or a removal of it was killed); it is made anew",
    cause: "Something in the VM's folder was removed, or what made or removed the VM has ended half-way.",
    remedy: "Nothing has to be done: the up removes what is left, and makes the VM anew.",
  },
  "no-landlock": {
    text: "{vm}: Cloud Hypervisor runs without Landlock, which the kernel of this host does not offer",
    cause:
      "The hypervisor cannot shut itself out of the files that are not its VM's: the kernel is older than 6.2, or has Landlock off.",
    remedy:
      "Use a kernel from 6.2 on with Landlock; the VM runs without it, with seccomp as its only sandbox.",
  },
  "not-confirmed": {
    text: "{vm}: cannot be marked as saved: {finding}",
    cause: "The engine has saved the resource, and the VM's record could not be told.",
    remedy: "Nothing has to be done: the next preview marks it.",
  },
  "snapshot-kept": {
    text: "{snapshot}: keeps the snapshot of {vm}, which is not the VM that the program names by now",
    cause: "The VM of a snapshot was made anew; a snapshot stays what it was taken of.",
    remedy: "Give another `trigger` to take a snapshot of the new VM; the old one goes then.",
  },
  "snapshot-reclaimed": {
    text: "the snapshot {snapshot} of an interrupted up is removed; it is taken anew",
    cause: "An earlier engine was killed before it could save the snapshot that it had taken.",
    remedy: NOTHING,
  },
  "snapshot-on-server": {
    text: "{snapshot}: the server at {url} keeps the snapshot; its API cannot remove one",
    cause: "A snapshot of a VM on a server leaves the program.",
    remedy: "Remove it on the server's host if its space is needed.",
  },
  "connections-left": {
    text: "{vm}: this host keeps connections with the guest of before at {address}; the restored one may stand still for minutes until it connects anew",
    cause:
      "The kernel of this host cannot end connections (CONFIG_INET_DIAG_DESTROY), as a restored guest needs it.",
    remedy: "Wait, or use a kernel that has the option.",
  },
  "restores-snapshot": {
    text: "{vm}: restores the guest of {snapshot}, with the memory and the disk that it had then",
    cause: "`snapshotId` names a snapshot, and the VM is new or made anew.",
    remedy: "Read it before saying yes: what the guest has not yet written goes to its root from now on.",
  },
  "export-lost": {
    text: "{export}: {found}; it is made anew, and the VMs on it with it",
    cause:
      "The server of an `AgentFs` has ended, whose file handles end with it; or an export was removed outside Pulumi; or what it serves was removed or made anew.",
    remedy: "Nothing has to be done: the up makes the export anew, and then its VMs.",
  },
  "export-reclaimed": {
    text: "{export}: the export of an interrupted up ({created}) is ended; it is made anew",
    cause: "An earlier engine was killed before it could save the export that it had made.",
    remedy: NOTHING,
  },
  "export-listens-everywhere": {
    text: "{export}: warning: nfs-ganesha listens at every address of this host, not at {address} alone; it turns away whoever is not among allowedClients",
    cause:
      "nfs-ganesha 4 mistakes its address on a host without an IPv6 address, and none could be lent to it for its start: IPv6 is disabled on `lo`, or ip(8) or the right to use it is missing.",
    remedy:
      "Keep others from the ports by a firewall; or enable IPv6 on `lo` (sysctl net.ipv6.conf.lo.disable_ipv6=0), and make the export anew.",
  },
  "export-unguarded": {
    text: "{export}: warning: whoever has a route to {address} by this host can read and write the root; the rule that keeps them out takes nftables and CAP_NET_ADMIN",
    cause:
      "AgentFS asks nobody who they are, Linux takes packets to an address of its own on every interface, and nft(8) is not installed or this process may not change the network.",
    remedy:
      "Install the package nftables and run pulumi as root, then make the export anew; or keep others from the port by a firewall.",
  },
  forgotten: {
    text: "{vm} is forgotten; its folder is now {folder}",
    cause: "`microvm forget` gave the VM up.",
    remedy: "Remove the folder once nothing in it is needed.",
  },
  "forgotten-elsewhere": {
    text: "{vm} is forgotten; no folder of it was here",
    cause: "`microvm forget` gave up a VM that was made on another host.",
    remedy: NOTHING,
  },
  "still-runs": {
    text: "process {pid} of {vm} still runs and was not ended; to end it: kill {pid}",
    cause: "`microvm forget` ends no process.",
    remedy: "End it if it is not wanted.",
  },
  "start-finished": {
    text: "{vm}: its start, which was killed with the server, is done",
    cause: "microvm-restserver was killed while it started the VM; the next one has finished that.",
    remedy: NOTHING,
  },
  "start-unfinished": {
    text: "{vm}: its start, which was killed with the server, has failed: {finding}",
    cause: "microvm-restserver was killed while it started the VM; the next one could not finish that.",
    remedy: "As the finding says; then PATCH the VM with `resume`.",
  },
  "key-unused": {
    text: "{key} in {file} is of no use to {hypervisor}",
    cause: "The config.yaml of microvm-restserver has a key that its hypervisor has no use for.",
    remedy: "Remove the key, or choose the other hypervisor.",
  },
} as const satisfies Record<string, NoticeKind>;

/** A key of {@link noticeKinds}. */
export type NoticeCode = keyof typeof noticeKinds;

type NamesIn<Text extends string> = Text extends `${string}{${infer Name}}${infer Rest}`
  ? Name | NamesIn<Rest>
  : never;

/** The values that a notice's text names. */
export type NoticeValues<Code extends NoticeCode> = Readonly<
  Record<NamesIn<(typeof noticeKinds)[Code]["text"]>, string | number>
>;

/** The line of a notice. */
export function noticeText<Code extends NoticeCode>(code: Code, values: NoticeValues<Code>): string {
  const byName: Readonly<Record<string, string | number>> = values;
  return noticeKinds[code].text.replaceAll(/\{(\w+)\}/g, (_, name: string) => String(byName[name]));
}
