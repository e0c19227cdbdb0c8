/**
 * A real server that is strict, and a real rpcbind on port 111: in a network, a mount and a process namespace of
 * their own, where port 111 is free and everything ends with the first process.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterAll, beforeAll, describe as suite, expect, it } from "vitest";

import { describe, type NfsFinding, type ProbeRequest } from "../../../../provider/preflight/nfs/index.js";
import { whyNoNfsServer } from "../../../lab/nfs.js";
import { elfFile } from "./elf.js";

const reason = whyNoNfsServer();
const NFS_PORT = 2049;
const MOUNT_PORT = 20_048;

const START = `
ip link set lo up
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/rpcbind
rpcbind -f -w &
tries=0
until [ -S /run/rpcbind.sock ]; do
  tries=$((tries + 1)); [ $tries -lt 200 ] || { echo "rpcbind does not start" >&2; exit 1; }
  sleep 0.05
done
ganesha.nfsd -F -f "$FOLDER/ganesha.conf" -L "$FOLDER/log" -p /run/ganesha.pid &
tries=0
until grep -qs "NFS SERVER INITIALIZED" "$FOLDER/log"; do
  tries=$((tries + 1)); [ $tries -lt 400 ] || { tail -n 8 "$FOLDER/log" >&2; exit 1; }
  sleep 0.05
done
"$NODE" --import tsx "$CHILD"
`;

/** One export per way to be strict. */
const EXPORTS = {
  plain: "",
  privileged: "PrivilegedPort = true;",
  squashed: "Squash = All_Squash;",
  kerberos: "SecType = krb5;",
  version4: "Protocols = 4;",
} as const;

function configuration(folder: string): string {
  const blocks = Object.entries(EXPORTS).map(([name, settings], index) => {
    const defaults = ["Squash = No_Root_Squash;", "SecType = sys;", "Protocols = 3;"];
    const rest = defaults.filter((setting) => setting.split(" ")[0] !== settings.split(" ")[0]);
    return `EXPORT { Export_Id = ${index + 1}; Path = "${join(folder, name)}"; Pseudo = "/${name}"; Access_Type = RW;
  Transports = TCP; FSAL { Name = VFS; } ${rest.join(" ")} ${settings} }\n`;
  });
  return `NFS_CORE_PARAM { Protocols = 3, 4; NFS_Port = ${NFS_PORT}; MNT_Port = ${MOUNT_PORT}; Enable_UDP = false;
  Enable_NLM = false; Enable_RQUOTA = false; mount_path_pseudo = false; }\n${blocks.join("")}`;
}

suite.skipIf(reason !== undefined)(
  `the probe of a strict server${reason === undefined ? "" : ` (${reason})`}`,
  () => {
    let folder: string;
    let requests: readonly ProbeRequest[];
    let findings: readonly NfsFinding[];

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), "strict-"));
      await chmod(folder, 0o755);
      for (const name of Object.keys(EXPORTS)) {
        await mkdir(join(folder, name, "sbin"), { recursive: true });
        await writeFile(join(folder, name, "sbin/init"), elfFile({ machine: 62 }), { mode: 0o700 });
      }
      await writeFile(join(folder, "ganesha.conf"), configuration(folder));
      const request = {
        server: "127.0.0.1",
        port: NFS_PORT,
        mountPort: MOUNT_PORT,
        path: join(folder, "plain"),
      };
      const at = (name: keyof typeof EXPORTS, more: Partial<ProbeRequest> = {}): ProbeRequest => ({
        ...request,
        path: join(folder, name),
        ...more,
      });
      requests = [
        at("plain", { mountPort: "rpcbind" }),
        at("plain", { mountPort: 111 }),
        at("privileged"),
        at("privileged", { guestNetwork: "routed" }),
        at("squashed"),
        at("kerberos"),
        at("version4"),
        at("plain", { port: 111 }),
      ];
      findings = await probeThere(folder, requests);
    }, 60_000);

    afterAll(async () => {
      await rm(folder, { recursive: true, force: true });
    });

    const outcome = (index: number): NfsFinding & { words: string } => {
      const [finding, request] = [findings[index], requests[index]];
      if (finding === undefined || request === undefined) throw new Error("no such finding");
      const { input, text } = describe(finding, request);
      return { ...finding, words: `${input}: ${text}` };
    };

    it("finds mountd through rpcbind", () => {
      expect(outcome(0)).toMatchObject({ kind: "ok", mountPort: MOUNT_PORT, init: { path: "/sbin/init" } });
    });

    it("tells rpcbind from the services behind it", () => {
      expect(outcome(1)).toMatchObject({ kind: "program-not-registered", program: "mountd", port: 111 });
      expect(outcome(7)).toMatchObject({ kind: "program-not-registered", program: "nfsd", port: 111 });
    });

    it("finds out that only source ports below 1024 are answered, which a guest behind a user network has not", () => {
      expect(outcome(2)).toMatchObject({
        kind: "rpc-denied",
        certain: true,
        reason: "AUTH_TOOWEAK",
        needsPrivilegedPort: true,
        words: expect.stringMatching(/^nfsServer: .*source ports below 1024/),
      });
      expect(outcome(3)).toMatchObject({ kind: "ok" });
    });

    it("reports an init that a squashed root cannot read", () => {
      expect(outcome(4)).toMatchObject({
        kind: "access-denied",
        at: "/sbin/init",
        status: "NFS3ERR_ACCES",
        words: expect.stringContaining("no_root_squash"),
      });
    });

    it("reports an export for Kerberos only", () => {
      expect(outcome(5)).toMatchObject({ kind: "security-flavor", flavors: [390_003] });
    });

    it("does not count an export for NFS version 4 only", () => {
      expect(outcome(6)).toMatchObject({ kind: "export-unknown" });
    });
  },
);

async function probeThere(folder: string, requests: readonly ProbeRequest[]): Promise<NfsFinding[]> {
  const namespaces = ["--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"];
  const child = spawn("setpriv", ["--pdeathsig", "KILL", "unshare", ...namespaces, "sh", "-euc", START], {
    env: {
      ...process.env,
      FOLDER: folder,
      NODE: process.execPath,
      CHILD: join(__dirname, "probe-child.ts"),
      REQUESTS: JSON.stringify(requests),
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
  await once(child, "close");
  if (stdout === "") throw new Error(`no findings: ${stderr}`);
  return JSON.parse(stdout) as NfsFinding[];
}
