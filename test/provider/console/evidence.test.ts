import { describe, expect, it } from "vitest";

import type { BootConfiguration } from "../../../provider/boot/boot.js";
import {
  atLine,
  atTail,
  atTime,
  awaited,
  type Claim,
  claimOf,
  dueOf,
  type Evidence,
  unproved,
} from "../../../provider/console/evidence.js";

const nfsRoot: BootConfiguration["root"] = {
  type: "nfs",
  server: "10.0.2.2",
  hostServer: "127.0.0.1",
  port: 2049,
  mountPort: "rpcbind",
  path: "/srv/root",
};
const diskRoot: BootConfiguration["root"] = { type: "disk", rootfs: "/images/root.img" };
const byKernel: Claim = { root: nfsRoot, by: "kernel" };
const byInitramfs: Claim = { root: nfsRoot, by: "initramfs" };

const ECHO = "[    0.000000] Command line: console=ttyS0 root=/dev/nfs nfsroot=10.0.2.2:/srv/root rw";
const MOUNTED = "[    0.702013] VFS: Mounted root (nfs filesystem) on device 0:11.";
const RUN = "[    1.144193] Run /sbin/init as init process";

/** Runs lines through the machine, `step` milliseconds apart. */
function after(claim: Claim, lines: readonly string[], step = 1): Evidence {
  let now = 0;
  let state = unproved(claim);
  for (const line of lines) state = atLine(state, line, (now += step));
  return state;
}

describe("an NFS root that the kernel mounts", () => {
  it("is proved by mount, init and output of user space, in this order", () => {
    expect(after(byKernel, [ECHO]).stage).toBe("booting");
    expect(after(byKernel, [ECHO, MOUNTED]).stage).toBe("mounted");
    expect(after(byKernel, [ECHO, MOUNTED, RUN]).stage).toBe("started");
    const spoken = after(byKernel, [ECHO, MOUNTED, RUN, "guest: I am here", "guest: and more"]);
    expect(dueOf(spoken)).toBe(2004);
    expect(atTime(spoken, 2004).stage).toBe("proved");
  });

  it("is not proved by the start of init alone: the kernel says that without a root, too", () => {
    const state = after(byKernel, [ECHO, RUN, "some words"]);
    expect(state.stage).toBe("booting");
    expect(dueOf(state)).toBeUndefined();
  });

  it("is not proved by lines before the echo of the command line", () => {
    expect(after(byKernel, [MOUNTED, RUN, "words"]).stage).toBe("silent");
  });

  it("is not proved by a command line that holds the words", () => {
    const echo = `[    0.000000] Kernel command line: a="VFS: Mounted root (nfs filesystem)" b="Run /sbin/init as init process"`;
    const unknown = `[    0.000000] Unknown kernel command line parameters "VFS: Mounted root (nfs filesystem) on", will be passed to user space.`;
    expect(after(byKernel, [ECHO, echo, unknown]).stage).toBe("booting");
    // Seen on a slow serial line: two characters were lost.
    const torn = unknown.replace("Unknown kernel", "Unknowkernel");
    expect(after(byKernel, [ECHO, torn]).stage).toBe("booting");
  });

  it("is not proved by the words in the middle of a message", () => {
    const other = "[    0.700000] modprobe: VFS: Mounted root (nfs filesystem) on device 0:11.";
    expect(after(byKernel, [ECHO, other]).stage).toBe("booting");
  });

  it("is proved by 500 ms without a panic", () => {
    const state = after(byKernel, [ECHO, MOUNTED, RUN]);
    expect(dueOf(state)).toBe(503);
    expect(atTime(state, 502).stage).toBe("started");
    expect(atTime(state, 503).stage).toBe("proved");
  });

  it("is proved later where the boot is slow: a fifth of its time without a panic", () => {
    const state = after(byKernel, [ECHO, MOUNTED, RUN], 10_000);
    expect(dueOf(state)).toBe(34_000);
    expect(dueOf(atLine(state, "guest: I am here", 31_000))).toBe(35_200);
  });

  it("counts the 500 ms from the last program that the kernel tries", () => {
    const state = after(
      byKernel,
      [ECHO, MOUNTED, RUN, "[    1.15] Run /etc/init as init process"].slice(0, 3),
    );
    const again = atLine(state, "[    1.155442] Run /etc/init as init process", 400);
    expect(dueOf(again)).toBe(900);
    expect(again.init).toBe("/etc/init");
  });

  it("is not proved by more lines of the kernel", () => {
    const state = after(byKernel, [ECHO, MOUNTED, RUN, "[    1.2] x".replace("1.2", "1.200000"), "", "  "]);
    expect(state.stage).toBe("started");
  });

  it("fails on another file system than NFS", () => {
    const state = after(byKernel, [
      ECHO,
      "[    0.7] ".replace("0.7", "0.700000") +
        "VFS: Mounted root (ext4 filesystem) readonly on device 254:0.",
    ]);
    expect(state.stage).toBe("failed");
    expect(state.failure?.cause).toMatch(/another root than 10\.0\.2\.2:\/srv\/root over NFS \(port 2049\)/);
  });

  it("fails on a panic that follows the last words of an init that gives up", () => {
    const spoken = after(byKernel, [ECHO, MOUNTED, RUN, "guest: giving up"]);
    const panic = "[    1.866489] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100";
    expect(atLine(spoken, panic, 100).stage).toBe("failed");
  });

  it("is not proved by the words of a loader that gives up", () => {
    const words =
      "/sbin/init: error while loading shared libraries: libc.so.6: cannot open shared object file";
    const state = after(byKernel, [ECHO, MOUNTED, RUN, words]);
    expect(dueOf(state)).toBe(503);
    const panic = "[    1.866489] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00007f00";
    expect(atLine(state, panic, 100).failure?.cause).toMatch(
      /^a library of the init program is missing: libc/,
    );
  });

  it("fails on a panic, also when it is written into a line of user space", () => {
    const panic = "[    1.866489] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100";
    for (const line of [panic, `login: ${panic}`]) {
      const state = after(byKernel, [ECHO, MOUNTED, RUN, line]);
      expect(state.stage).toBe("failed");
      expect(state.failure?.cause).toBe("the init program ended (exit status 1)");
    }
  });

  it("fails on a panic that comes after the proof", () => {
    const proved = atTime(after(byKernel, [ECHO, MOUNTED, RUN]), 1000);
    expect(atLine(proved, "[    2.000000] Kernel panic - not syncing: stack-protector", 1001).stage).toBe(
      "failed",
    );
  });

  it("fails when the kernel cannot run the init program, without waiting for its next candidates", () => {
    const line = "[    1.746506] Starting init: /sbin/init exists but couldn't execute it (error -8)";
    const state = after(byKernel, [ECHO, MOUNTED, RUN, line]);
    expect(state.failure?.cause).toMatch(/\/sbin\/init cannot be run \(error -8: exec format error/);
  });

  it("is told of its cause when the panic only says that there is no root", () => {
    const state = after(byKernel, [
      ECHO,
      "[   97.100000] VFS: Unable to mount root fs via NFS.",
      "[   97.200000] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,255)",
    ]);
    expect(state.failure?.cause).toBe("the kernel could not mount the root over NFS");
  });

  it("says what it waits for", () => {
    expect(awaited(unproved(byKernel))).toBe("the kernel's first console line");
    expect(awaited(after(byKernel, [ECHO]))).toBe(
      "the kernel to mount 10.0.2.2:/srv/root over NFS (port 2049)",
    );
    expect(awaited(after(byKernel, [ECHO, MOUNTED]))).toBe("the kernel to start the root's init program");
    expect(awaited(after(byKernel, [ECHO, MOUNTED, RUN]))).toBe("a sign of life from /sbin/init");
    expect(awaited(after({ ...byKernel, readiness: /login:/ }, [ECHO, MOUNTED, RUN]))).toBe(
      "a console line that matches /login:/",
    );
  });
});

/** A kernel's line without its time stamp. */
const bare = (line: string): string => line.replace(/^\[ *[\d.]+\] /, "");

describe("a kernel without time stamps", () => {
  it("is proved by the 500 ms only, since its lines look like user space's", () => {
    const state = after(byKernel, [ECHO, MOUNTED, RUN, "[    1.2] random: crng init done"].map(bare));
    expect(state.stage).toBe("started");
    expect(atTime(state, 503).stage).toBe("proved");
  });

  it("is told of a panic", () => {
    const panic = "Kernel panic - not syncing: No working init found.  Try passing init= option to kernel.";
    expect(after(byKernel, [ECHO, MOUNTED, RUN].map(bare).concat(panic)).failure?.cause).toMatch(
      /no init program/,
    );
  });
});

describe("an NFS root that our initramfs mounts", () => {
  const MOUNT_LINE = "microvm-initramfs: mounted root (nfs) 10.0.2.2:/srv/root";
  const START_LINE = "microvm-initramfs: starting /sbin/init";
  const ITS_INIT = "[    3.091563] Run /init as init process";

  it("is proved by the initramfs' lines, then a sign of user space", () => {
    const state = after(byInitramfs, [ECHO, ITS_INIT, MOUNT_LINE, START_LINE]);
    expect(state.stage).toBe("started");
    expect(atTime(state, 504).stage).toBe("proved");
  });

  it("takes the lines from the kernel's log, too", () => {
    const lines = [MOUNT_LINE, START_LINE].map((line) => `[    3.200000] ${line}`);
    expect(after(byInitramfs, [ECHO, ITS_INIT, ...lines]).stage).toBe("started");
  });

  it("puts a line together again that the kernel wrote into", () => {
    const torn = [
      "microvm-initramfs: mounted ro[    3.200000] random: crng init done",
      "ot (nfs) 10.0.2.2:/srv/root",
    ];
    expect(after(byInitramfs, [ECHO, ITS_INIT, ...torn]).stage).toBe("mounted");
  });

  it("fails when the mounted root is not the named one", () => {
    const state = after(byInitramfs, [
      ECHO,
      ITS_INIT,
      "microvm-initramfs: mounted root (nfs) 10.0.2.2:/srv/other",
    ]);
    expect(state.stage).toBe("failed");
  });

  it("is not proved by the kernel's own mount line", () => {
    expect(after(byInitramfs, [ECHO, MOUNTED, RUN]).stage).toBe("booting");
  });

  it("fails at once on an error line of the initramfs", () => {
    const line =
      "microvm-initramfs: error: there is no executable /sbin/init, /etc/init, /bin/init or /bin/sh in 10.0.2.2:/srv/root";
    const state = after(byInitramfs, [ECHO, ITS_INIT, MOUNT_LINE, line]);
    expect(state.failure?.cause).toMatch(/^there is no executable \/sbin\/init/);
    expect(state.failure?.remedy).toMatch(/init=/);
  });

  it("fails when the hand-over to the root fails", () => {
    const line = "switch_root: can't execute '/sbin/init': Exec format error";
    const state = after(byInitramfs, [ECHO, ITS_INIT, MOUNT_LINE, START_LINE, line]);
    expect(state.failure?.cause).toMatch(/another processor/);
  });
});

describe("a disk root", () => {
  const claim: Claim = { root: diskRoot, by: "kernel" };

  it("is proved by its own file system", () => {
    const line = "[    0.700000] VFS: Mounted root (ext4 filesystem) readonly on device 254:0.";
    expect(after(claim, [ECHO, line, RUN]).stage).toBe("started");
    expect(
      after({ ...claim, by: "initramfs" }, [ECHO, "microvm-initramfs: mounted root (ext4) /dev/vda"]).stage,
    ).toBe("mounted");
  });

  it("fails on an NFS root", () => {
    expect(after(claim, [ECHO, MOUNTED]).stage).toBe("failed");
    expect(awaited(after(claim, [ECHO]))).toBe("the kernel to mount /dev/vda");
  });
});

describe("readiness.console", () => {
  const claim: Claim = { ...byKernel, readiness: /login:/ };

  it("is what decides, instead of output or time", () => {
    const state = after(claim, [ECHO, MOUNTED, RUN, "Welcome"]);
    expect(state.stage).toBe("started");
    expect(dueOf(state)).toBeUndefined();
    expect(atLine(state, "host login: ", 10).stage).toBe("proved");
  });

  it("does not count before the root is mounted", () => {
    expect(after(claim, [ECHO, "login: "]).stage).toBe("booting");
  });

  it("matches a prompt that has no line end, once it stands", () => {
    const state = atTail(after(claim, [ECHO, MOUNTED, RUN]), "host login: ", 10);
    expect(dueOf(state)).toBe(60);
    expect(atTime(state, 60).stage).toBe("proved");
  });
});

describe("an unfinished line", () => {
  it("of the kernel proves nothing", () => {
    const state = atTail(after(byKernel, [ECHO, MOUNTED, RUN]), "[    1.2", 10);
    expect(atTime(state, 60).stage).toBe("started");
  });
});

describe("claimOf", () => {
  const boot = { root: nfsRoot, cmdline: "console=ttyS0 root=/dev/nfs rw panic=-1" };
  const initramfs = { path: "/cache/initramfs", sha256: "0".repeat(64), generated: true };
  const readiness = { timeoutSeconds: 120 };

  it("takes the word of whoever mounts the root", () => {
    expect(claimOf(boot, readiness).by).toBe("kernel");
    expect(claimOf({ ...boot, initramfs }, readiness).by).toBe("initramfs");
  });

  it.each(["quiet", "loglevel=4", "loglevel=7 quiet", "loglevel=6", "loglevel=4,x"])(
    "needs a pattern with %s",
    (words) => {
      const hidden = { ...boot, cmdline: `${boot.cmdline} ${words}` };
      expect(() => claimOf(hidden, readiness)).toThrow(/^readiness\.console: .*quiet.*expected a pattern/);
      expect(claimOf(hidden, { ...readiness, console: "login:" }).by).toBe("person");
    },
  );

  it.each(["loglevel=7", "quiet loglevel=8", "quiet debug"])("needs none with %s", (words) => {
    expect(claimOf({ ...boot, cmdline: `${boot.cmdline} ${words}` }, readiness).by).toBe("kernel");
  });

  it("needs a pattern with an initramfs of the person's own", () => {
    const own = { ...boot, initramfs: { ...initramfs, generated: false } };
    expect(() => claimOf(own, readiness)).toThrow(/^readiness\.console: an `initramfs` of your own/);
    const claim = claimOf(own, { ...readiness, console: "ready" });
    expect(after(claim, [ECHO, `[    0.000000] Kernel command line: x=ready`]).stage).toBe("booting");
    expect(after(claim, [ECHO, "guest is ready"]).stage).toBe("proved");
  });

  it("refuses what is no regular expression", () => {
    expect(() => claimOf(boot, { ...readiness, console: "(" })).toThrow(
      /^readiness\.console: expected a regular/,
    );
  });
});
