import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import type { Values } from "../../../provider/plan/fields.js";
import { whyNoNfsServer } from "../../lab/nfs.js";
import { agentFsBinary, whyNoAgentFs } from "../../lab/programs.js";
import { mayUseNamespaces, Namespace } from "../host/network/namespace.js";
import { sampleHost, sampleVm } from "../host/network/vms.js";
import { makeBase, useExportBed } from "./export-bed.js";

const bed = useExportBed();
const noNamespace = mayUseNamespaces ? undefined : "no right to make a network namespace";

/** A title that says why its tests are skipped. */
const titled = (title: string, reason: string | undefined) =>
  `${title}${reason === undefined ? "" : ` (skipped: ${reason})`}`;

const program = (name: string) => [process.execPath, "--import", "tsx", join(__dirname, name)];

/** Makes, probes and removes an export, while somebody on the same cable tries to get at it. The maker is the host, or with fewer rights. */
async function served(
  host: Namespace,
  type: "AgentFs" | "NfsExport",
  inputs: Values,
  maker = host,
): Promise<{ result: unknown; notices: string }> {
  const outside = await Namespace.make();
  await host.cable("cable", "192.0.2.1/24", outside, "192.0.2.2/24");
  await outside.sh("ip route add 10.20.0.0/16 via 192.0.2.1");
  const [file, words] = outside.command(...program("probing-process.ts"));
  const command = maker.command(
    ...program("bridged-process.ts"),
    type,
    JSON.stringify(inputs),
    "192.0.2.1",
    file,
    ...words,
  );
  const { stdout } = await promisify(execFile)(...command);
  const [, result = "{}"] = /^result (.*)$/m.exec(stdout) ?? [];
  return { result: JSON.parse(result), notices: stdout.replace(/^result .*$/m, "") };
}

/** Disables IPv6 on interfaces: `default` stands for those to come. */
const disableIpv6 = (host: Namespace, which: string) =>
  host.sh(`for name in ${which}; do echo 1 > /proc/sys/net/ipv6/conf/$name/disable_ipv6; done`);

const meanwhile = ["lo", "cable", "microvm0", expect.stringMatching(/^mvx[0-9a-f]{12}$/)];
const nothing = { interfaces: ["lo", "cable"], rules: "", isServed: false };

const noGanesha = whyNoNfsServer() ?? noNamespace;

describe.skipIf(noGanesha !== undefined)(titled("an NfsExport at the bridge's address", noGanesha), () => {
  it("makes the bridge before the first VM, answers there alone on a host without IPv6 addresses, and takes the bridge with it", async () => {
    const host = await Namespace.make();
    await disableIpv6(host, "default");
    const { result, notices } = await served(host, "NfsExport", { directory: await makeBase(bed) });
    expect(result).toEqual({
      previewed: "10.20.1.1",
      atBridge: "init-missing",
      atLoopback: "refused",
      fromOutside: "refused",
      fromOutsideByRoute: "export-unknown",
      meanwhile: { interfaces: meanwhile, rules: "", isServed: true },
      afterwards: nothing,
    });
    expect(notices).not.toContain("listens at every address");
  });

  it("says where nfs-ganesha cannot be kept to the address, and turns away who is not among its clients", async () => {
    const host = await Namespace.make();
    await disableIpv6(host, "all default");
    const { result, notices } = await served(host, "NfsExport", { directory: await makeBase(bed) });
    expect(result).toMatchObject({ atBridge: "init-missing", fromOutside: "export-unknown" });
    expect(notices).toMatch(/nfs-ganesha listens at every address of this host, not at 10\.20\.1\.1 alone/);
  });
});

const noAgentFs = whyNoAgentFs() ?? noNamespace;

const agentFsInputs = async () => ({
  databasePath: join(bed.folder, "fs.db"),
  baseDirectory: await makeBase(bed),
  binary: agentFsBinary(),
});

describe.skipIf(noAgentFs !== undefined)(titled("an AgentFs at the bridge's address", noAgentFs), () => {
  it("makes the bridge before the first VM, answers there alone, and takes the bridge with it", async () => {
    const { result, notices } = await served(await Namespace.make(), "AgentFs", await agentFsInputs());
    expect(notices).not.toContain("warning");
    expect(result).toEqual({
      previewed: "10.20.1.1",
      atBridge: "init-missing",
      atLoopback: "refused",
      fromOutside: "refused",
      fromOutsideByRoute: "timed-out",
      meanwhile: { interfaces: meanwhile, rules: expect.any(String), isServed: true },
      afterwards: nothing,
    });
  });

  it("needs no right on a bridge that is there, and says whom it cannot keep out then", async () => {
    const host = await Namespace.make();
    await host.sh("ip link add br7 type bridge; ip address add 10.20.7.1/24 dev br7; ip link set br7 up");
    const network = { bridge: "br7", subnet: "10.20.7.1/24" };
    const given = { ...(await agentFsInputs()), network };
    const { result, notices } = await served(host, "AgentFs", given, host.without("net_admin"));
    expect(result).toMatchObject({ atBridge: "init-missing", fromOutsideByRoute: "init-missing" });
    expect(notices).toMatch(/whoever has a route to 10\.20\.7\.1 by this host can read and write the root/);
    expect((await host.inventory()).interfaces).toEqual(["br7", "cable", "lo"]);
  });
});

/** The bridge of a VM as an export holds it, by a process of the host. */
const HOLD = join(__dirname, "../../../provider/host/network/hold.ts");
const EXPORT = "00112233445566ff";
const BRIDGE = { bridge: "microvm0", hostAddress: "10.20.1.1", prefixLength: 16 };

async function inHost(host: Namespace, act: "holdBridge" | "guardServer" | "releaseBridge"): Promise<void> {
  const script = `void require(${JSON.stringify(HOLD)}).${act}("${EXPORT}", ${JSON.stringify(BRIDGE)}, [20000])`;
  await promisify(execFile)(...host.command(process.execPath, "--import", "tsx", "-e", script));
}

describe.skipIf(noNamespace !== undefined)(
  titled("a bridge that an export and a VM use", noNamespace),
  () => {
    it("goes with whoever goes last, and the export's rules with the export", async () => {
      const { network: host, state, attacher } = await sampleHost();
      const has = async () => {
        const { interfaces, rules } = await host.inventory();
        return [
          ...interfaces.map((name) => name.replace(/^(mv[mx])[0-9a-f]{12}$/, "$1")),
          ...(rules.includes(`microvm ${EXPORT}`) ? ["guard"] : []),
          ...(rules === "" ? [] : ["rules"]),
        ];
      };
      const vm = await sampleVm(state, "vm");

      await inHost(host, "holdBridge");
      await inHost(host, "guardServer");
      await attacher.attach(vm);
      expect(await has()).toEqual(["lo", "microvm0", "mvm", "mvx", "guard", "rules"]);
      await inHost(host, "releaseBridge");
      expect(await has()).toEqual(["lo", "microvm0", "mvm", "rules"]);

      await inHost(host, "holdBridge");
      await inHost(host, "guardServer");
      await attacher.detach(vm);
      expect(await has()).toEqual(["lo", "microvm0", "mvx", "guard", "rules"]);
      await inHost(host, "releaseBridge");
      expect(await has()).toEqual(["lo"]);
    });
  },
);
