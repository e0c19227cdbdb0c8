import { describe, expect, it } from "vitest";
import { derivedFields, fields, type Policy, type Values } from "../../../provider/plan/fields.js";
import { createFirstFailures, plan, sharesRoot } from "../../../provider/plan/plan.js";
import { UNKNOWN } from "../../../provider/spec/validate.js";
import { diskState, nfsState, without } from "./sample-state.js";

const nothing = { action: "nothing", changes: [], failures: [], notices: [] };

/** For each row of the policy table: what it is, and another value of the field. */
const rows: readonly (readonly [field: string, policy: Policy, other: unknown])[] = [
  ["vmName", "replace", "other"],
  ["kernel", "none", "/boot/other"],
  ["initramfs", "none", "/initramfs"],
  ["useNfsRoot", "replace", false],
  ["nfsServer", "replace", "10.0.0.9"],
  ["nfsPort", "replace", 2049],
  ["nfsPath", "replace", "/other"],
  ["nfsMountPort", "replace", "rpcbind"],
  ["nfsOptions", "replace", "hard"],
  ["nfsExport", "replace", "files-0123abcd/0123456789abcdef"],
  ["rootfs", "replace", "/other.img"],
  ["entryPoint", "replace", "/agent"],
  ["kernelArgs", "replace", ["panic=-1", "x"]],
  ["ip", "replace", "dhcp"],
  ["vcpus", "replace", 2],
  ["memoryMiB", "replace", 1024],
  ["maxVcpus", "unsupported", 4],
  ["maxMemoryMiB", "unsupported", 1024],
  ["statefulDiskMiB", "grow", 64],
  ["portForwards", "update", [{ hostPort: 1, guestPort: 2, protocol: "tcp", hostAddress: "127.0.0.1" }]],
  ["network", "unsupported", { bridge: "br0" }],
  ["guestAccess", "replace", "nfs-only"],
  ["snapshotId", "unsupported", "s1"],
  ["acceptStaleRoot", "unsupported", true],
  ["powerState", "update", "paused"],
  ["readiness", "settings", { timeoutSeconds: 5 }],
  ["shutdownTimeoutSeconds", "settings", 0],
  ["backend", "replace", { type: "qemu", machine: "microvm", accelerator: "auto" }],
  ["configFile", "none", "/config.yaml"],
  ["preflight", "settings", "off"],
  ["cmdline", "replace", "console=ttyS0 other"],
  ["disks", "none", [{ path: "/state/x", numQueues: 1 }]],
  ["kernelSha256", "replace", "c".repeat(64)],
  ["initramfsSha256", "replace", "d".repeat(64)],
  ["generatedInitramfs", "none", "/state/.cache/i"],
  ["rootfsDigest", "replace", "size:1,mtime:x"],
  ["nfsServerAddress", "replace", "10.0.0.9"],
  ["stateDirectory", "none", "/other"],
  ["observed", "none", "unknown"],
];

/** Checked inputs in which a field matters. */
function stateWith(field: string): Values {
  return field === "nfsServerAddress" ? { ...nfsState, guestAccess: "nfs-only" } : nfsState;
}

/** Checked inputs with one field given anew, and what check derives from it. */
function changed(field: string, value: unknown): Values {
  const derived: Values =
    field === "nfsServer" ? { nfsServerAddress: value } : field === "powerState" ? { observed: value } : {};
  return { ...stateWith(field), ...derived, [field]: value };
}

const serverState = (nfsServer: string): Values => ({
  ...nfsState,
  nfsServer,
  nfsServerAddress: nfsServer === "localhost" ? "127.0.0.1" : nfsServer,
});

const repair = (observed: string, powerState = "running") =>
  plan({ ...nfsState, powerState }, { ...nfsState, powerState, observed });

const forwards = (hostPort: number, hostAddress = "127.0.0.1", protocol = "tcp") => ({
  portForwards: [{ hostPort, guestPort: 80, protocol, hostAddress }],
});

const refusals = (olds: Values, news: Values) =>
  createFirstFailures(olds, news).map(({ input, text }) => `${input}: ${text}`);

/** What a policy makes of a VM, with the field given anew. */
const actions: Readonly<Record<Policy, string>> = {
  replace: "replace",
  update: "update",
  settings: "update",
  // There was none before: its device would be a new one.
  grow: "replace",
  // It was made without room.
  resize: "replace",
  none: "nothing",
  unsupported: "nothing",
};

describe("the policy table", () => {
  it("has each of these rows, and no other", () => {
    const table = Object.entries({ ...fields, ...derivedFields });
    expect(table.map(([name, row]) => [name, row.change.qemu])).toEqual(
      rows.map(([name, policy]) => [name, policy]),
    );
  });

  it.each(rows)("makes a changed %s: %s", (field, policy, other) => {
    const { action, changes, failures } = plan(stateWith(field), changed(field, other));
    const isPlanned = policy !== "none" && policy !== "unsupported";
    expect(action).toBe(actions[policy]);
    expect(changes).toEqual(isPlanned ? [{ field, policy: policy === "grow" ? "replace" : policy }] : []);
    expect(failures).toEqual([]);
  });

  it("says what is different on Cloud Hypervisor", () => {
    const different = Object.entries({ ...fields, ...derivedFields })
      .filter(([, { change }]) => change.qemu !== change["cloud-hypervisor"])
      .map(([name, { change }]) => [name, change["cloud-hypervisor"]]);
    expect(Object.fromEntries(different)).toEqual({
      vcpus: "resize",
      memoryMiB: "resize",
      maxVcpus: "replace",
      maxMemoryMiB: "replace",
      network: "replace",
      snapshotId: "replace",
      acceptStaleRoot: "settings",
    });
  });

  it.each([
    ["grow within its room", { vcpus: 4, memoryMiB: 1024 }, "update"],
    ["outgrow its room", { vcpus: 5 }, "replace"],
    ["have fewer vCPUs", { vcpus: 1 }, "replace"],
    ["have memory that is no whole number of blocks more", { memoryMiB: 600 }, "replace"],
    ["have less memory", { memoryMiB: 256 }, "replace"],
    ["be given more room", { vcpus: 4, maxVcpus: 8 }, "replace"],
  ])("lets a Cloud Hypervisor VM %s", (_what, change, action) => {
    const backend = { type: "cloud-hypervisor" };
    const before = { ...nfsState, backend, vcpus: 2, memoryMiB: 512, maxVcpus: 4, maxMemoryMiB: 1024 };
    expect(plan(before, { ...before, ...change }).action).toBe(action);
  });

  it("replaces a Cloud Hypervisor VM that was made without room", () => {
    const before = { ...nfsState, backend: { type: "cloud-hypervisor" } };
    expect(plan(before, { ...before, vcpus: 2 }).action).toBe("replace");
  });

  it("names what each input means, its type and its default, for the README", () => {
    for (const [name, field] of Object.entries(fields)) {
      expect(field.meaning, name).toMatch(/^\S.*\.$/);
      expect(field.type, name).not.toBe("");
    }
  });

  it("plans nothing for equal values", () => {
    expect(plan(nfsState, structuredClone(nfsState))).toEqual(nothing);
    expect(plan(diskState, structuredClone(diskState))).toEqual(nothing);
  });

  it("looks at the outputs, which hold more, in the same way", () => {
    const outputs = {
      ...nfsState,
      state: "running",
      rootEvidence: "proved",
      hostId: "x",
      pid: 5,
      __provider: "p",
    };
    expect(plan(outputs, nfsState)).toEqual(nothing);
  });

  it("replaces when any one change does, and names them all", () => {
    const { action, changes } = plan(nfsState, { ...nfsState, powerState: "stopped", nfsPort: 2, vcpus: 3 });
    expect(action).toBe("replace");
    expect(changes).toEqual([
      { field: "nfsPort", policy: "replace" },
      { field: "vcpus", policy: "replace" },
      { field: "powerState", policy: "update" },
      { field: "observed", policy: "update" },
    ]);
  });
});

describe("another way to say the same", () => {
  it.each([
    ["localhost", "127.0.0.1"],
    ["127.0.0.1", "localhost"],
    ["127.0.0.1", "0.0.0.0"],
    ["127.0.0.1", "10.0.2.2"],
  ])("of the server is no change: %s and %s", (before, after) => {
    expect(plan(serverState(before), serverState(after))).toEqual(nothing);
  });

  it("of a server elsewhere is no change: its name and its address", () => {
    const olds = { ...nfsState, nfsServer: "nfs.example", nfsServerAddress: "192.0.2.7" };
    expect(plan(olds, { ...olds, nfsServer: "192.0.2.7" })).toEqual(nothing);
    const moved = { ...olds, nfsServerAddress: "192.0.2.8", cmdline: "console=ttyS0 192.0.2.8" };
    expect(plan(olds, moved).changes).toEqual([{ field: "cmdline", policy: "replace" }]);
  });

  it("of a server that is reached by a relay is a change where the command line shows none", () => {
    const olds = {
      ...nfsState,
      guestAccess: "nfs-only",
      nfsServer: "nfs.example",
      nfsServerAddress: "192.0.2.7",
    };
    expect(plan(olds, { ...olds, nfsServer: "192.0.2.7" })).toEqual(nothing);
    expect(plan(olds, { ...olds, nfsServerAddress: "192.0.2.8" }).action).toBe("replace");
  });

  it("of the kernel is no change: its content counts, not its path", () => {
    expect(plan(nfsState, { ...nfsState, kernel: "/boot/link-to-vmlinuz" })).toEqual(nothing);
  });

  it("of a generated initramfs is no change: the VM keeps its copy", () => {
    const olds = { ...nfsState, initramfsSha256: "1", generatedInitramfs: "/state/.cache/1" };
    expect(plan(olds, { ...olds, initramfsSha256: "2", generatedInitramfs: "/state/.cache/2" })).toEqual(
      nothing,
    );
    const own = { ...without(olds, "generatedInitramfs"), initramfs: "/mine", initramfsSha256: "2" };
    expect(plan(olds, own).action).toBe("replace");
  });

  it("of a list or an object is no change: the order of fields, absent ones", () => {
    const backend = { accelerator: "auto", binary: undefined, machine: "q35", type: "qemu" };
    expect(plan(nfsState, { ...nfsState, backend })).toEqual(nothing);
    expect(plan(nfsState, { ...nfsState, statefulDiskMiB: -0 })).toEqual(nothing);
  });
});

describe("state of a release that did not know an input", () => {
  it.each([
    "kernelArgs",
    "ip",
    "vcpus",
    "memoryMiB",
    "statefulDiskMiB",
    "portForwards",
    "guestAccess",
    "powerState",
    "readiness",
    "shutdownTimeoutSeconds",
    "backend",
    "preflight",
  ])("counts as its default: %s", (name) => {
    expect(plan(without(nfsState, name), nfsState)).toEqual(nothing);
  });

  it("differs where the new value is not the default", () => {
    expect(plan(without(nfsState, "vcpus"), { ...nfsState, vcpus: 2 }).action).toBe("replace");
  });

  it("is no change where it lacks an input that still has none", () => {
    expect(plan(nfsState, { ...nfsState, entryPoint: undefined, snapshotId: null })).toEqual(nothing);
  });
});

describe("a stateful disk", () => {
  const with64 = { ...nfsState, statefulDiskMiB: 64 };

  it("grows in place, and the preview says when its file system does", () => {
    expect(plan(with64, { ...with64, statefulDiskMiB: 128 })).toEqual({
      action: "update",
      changes: [{ field: "statefulDiskMiB", policy: "grow" }],
      failures: [],
      notices: ["my-vm: the disk grows at once, its file system at the next start of the VM."],
    });
  });

  it.each([32, 0])("does not shrink from 64 to %i", (size) => {
    expect(plan(with64, { ...with64, statefulDiskMiB: size })).toMatchObject({
      action: "nothing",
      failures: [
        {
          input: "statefulDiskMiB",
          text: `expected at least 64 MiB, which the disk has, got ${size}: a disk cannot shrink`,
        },
      ],
    });
  });

  it("takes any size when it has gone with its VM", () => {
    expect(plan(with64, { ...with64, statefulDiskMiB: 32, observed: "gone" })).toMatchObject({
      action: "replace",
      failures: [],
    });
  });

  it("is named when a replace drops it", () => {
    const dropped = "my-vm: the replace drops the stateful disk of 64 MiB and all that is on it.";
    expect(plan(with64, { ...with64, nfsPort: 2049 }).notices).toEqual([dropped]);
    expect(plan(with64, { ...with64, observed: "damaged" }).notices).toEqual([dropped]);
    expect(plan(nfsState, { ...nfsState, nfsPort: 2049 }).notices).toEqual([]);
  });

  it("is not named when it has gone already", () => {
    expect(plan(with64, { ...with64, observed: "gone" }).notices).toEqual([]);
    expect(plan({ ...with64, observed: "gone" }, { ...with64, nfsPort: 2049 }).notices).toHaveLength(1);
  });
});

describe("values that a preview does not know yet", () => {
  it.each(rows.filter(([, policy]) => policy !== "none" && policy !== "unsupported"))(
    "count as a change of %s",
    (field, policy) => {
      const { action, failures } = plan(stateWith(field), changed(field, UNKNOWN));
      expect(action).toBe(actions[policy]);
      expect(failures).toEqual([]);
    },
  );

  it("do not shrink a disk", () => {
    const olds = { ...nfsState, statefulDiskMiB: 64 };
    expect(plan(olds, { ...nfsState, statefulDiskMiB: UNKNOWN })).toMatchObject({
      action: "update",
      failures: [],
    });
  });
});

describe("a VM that is not as it was left", () => {
  it.each([
    ["gone", "running", "replace"],
    ["gone", "stopped", "replace"],
    ["damaged", "running", "replace"],
    ["unproved", "running", "update"],
    ["stale", "running", "replace"],
    ["stale", "paused", "replace"],
    ["stale", "stopped", "update"],
    ["unproved", "paused", "update"],
    ["stopped", "running", "update"],
    ["paused", "running", "update"],
    ["running", "paused", "update"],
    ["running", "stopped", "update"],
  ])("and is %s where %s was asked for: %s", (observed, powerState, action) => {
    expect(repair(observed, powerState)).toMatchObject({
      action,
      changes: [{ field: "observed", policy: action }],
    });
  });

  it.each([
    ["running", "running"],
    ["paused", "paused"],
    ["stopped", "stopped"],
    ["unknown", "running"],
    [UNKNOWN, "running"],
  ])("but %s where %s was asked for is left alone", (observed, powerState) => {
    expect(repair(observed, powerState)).toEqual(nothing);
  });

  it("is compared with what is asked for now, not with what was seen last", () => {
    const outputs = { ...nfsState, observed: "stopped" };
    expect(plan(outputs, nfsState)).toEqual(nothing);
  });
});

describe("a new VM made before the old one goes", () => {
  const next: Values = { ...nfsState, vmName: "next", nfsPath: "/next" };

  it("is allowed where both share nothing", () => {
    expect(refusals(nfsState, next)).toEqual([]);
    expect(refusals(diskState, next)).toEqual([]);
    expect(refusals({ ...nfsState, ...forwards(80) }, { ...next, ...forwards(81) })).toEqual([]);
    expect(refusals({ ...nfsState, ...forwards(80) }, { ...next, ...forwards(80, "127.0.0.2") })).toEqual([]);
    expect(
      refusals({ ...nfsState, ...forwards(80) }, { ...next, ...forwards(80, "127.0.0.1", "udp") }),
    ).toEqual([]);
  });

  it("is refused where both have one name", () => {
    expect(refusals(nfsState, { ...next, vmName: "my-vm" })).toEqual([
      "vmName: old and new VM cannot exist side by side: both are called my-vm; leave deleteBeforeReplace at its default, or change it",
    ]);
  });

  it("is refused where both have one root", () => {
    expect(refusals(nfsState, { ...next, nfsPath: "/" })).toEqual([
      "nfsPath: old and new VM cannot exist side by side: both have one root; leave deleteBeforeReplace at its default, or change it",
    ]);
    expect(refusals(diskState, { ...diskState, vmName: "next" })).toEqual([
      "rootfs: old and new VM cannot exist side by side: both have one root; leave deleteBeforeReplace at its default, or change it",
    ]);
  });

  it.each([["127.0.0.1"], ["0.0.0.0"]])("is refused where both use one host port, on %s", (address) => {
    expect(refusals({ ...nfsState, ...forwards(80) }, { ...next, ...forwards(80, address) })).toEqual([
      "portForwards: old and new VM cannot exist side by side: both use host port 80/tcp; leave deleteBeforeReplace at its default, or change it",
    ]);
  });

  it("is refused for each of these at once", () => {
    const olds = { ...nfsState, ...forwards(80) };
    expect(createFirstFailures(olds, olds).map(({ input }) => input)).toEqual([
      "vmName",
      "nfsPath",
      "portForwards",
    ]);
  });

  it("is allowed as the repair of a VM that is gone: nothing stands beside it", () => {
    expect(refusals(nfsState, { ...nfsState, observed: "gone" })).toEqual([]);
    expect(refusals(nfsState, { ...nfsState, observed: "damaged" })).not.toEqual([]);
  });

  it("is not refused for what a preview does not know yet: check runs again when it is", () => {
    expect(refusals(nfsState, { ...next, nfsPath: UNKNOWN, vmName: UNKNOWN, portForwards: UNKNOWN })).toEqual(
      [],
    );
  });
});

describe("two roots", () => {
  it.each<[string, Values, Values, boolean]>([
    ["the same", nfsState, nfsState, true],
    ["one server under two names", { ...nfsState, nfsServer: "localhost" }, nfsState, true],
    ["loopback and wildcard", { ...nfsState, nfsServerAddress: "0.0.0.0" }, nfsState, true],
    [
      "one path written in two ways",
      { ...nfsState, nfsPath: "/x//y/" },
      { ...nfsState, nfsPath: "/x/./y" },
      true,
    ],
    ["another mount option", { ...nfsState, nfsOptions: "hard" }, nfsState, true],
    ["another server", { ...nfsState, nfsServerAddress: "10.0.0.9" }, nfsState, false],
    ["another port", { ...nfsState, nfsPort: 2049 }, nfsState, false],
    ["another path", { ...nfsState, nfsPath: "/x" }, nfsState, false],
    [
      "a path whose name begins alike",
      { ...nfsState, nfsPath: "/xy" },
      { ...nfsState, nfsPath: "/x" },
      false,
    ],
    ["one of NFS, one on disk", nfsState, diskState, false],
    ["the same disk", diskState, diskState, true],
    ["another disk", { ...diskState, rootfs: "/other.img" }, diskState, false],
  ])("are the same files or not: %s", (_, one, other, expected) => {
    expect(sharesRoot(one, other)).toBe(expected);
    expect(sharesRoot(other, one)).toBe(expected);
  });
});
