import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { whyNoNfsServer } from "../../lab/nfs.js";
import { mayUseNamespaces, Namespace } from "../host/network/namespace.js";
import { makeBase, useExportBed } from "./export-bed.js";

const bed = useExportBed();
const reason = whyNoNfsServer() ?? (mayUseNamespaces ? undefined : "no right to make a network namespace");
const title = `an export at the bridge's address${reason === undefined ? "" : ` (skipped: ${reason})`}`;

const program = (name: string) => [process.execPath, "--import", "tsx", join(__dirname, name)];

/** Makes, probes and removes an export, while somebody on the same cable tries to get at it. */
async function served(host: Namespace): Promise<{ result: unknown; notices: string }> {
  const outside = await Namespace.make();
  await host.cable("cable", "192.0.2.1/24", outside, "192.0.2.2/24");
  const [file, words] = outside.command(...program("probing-process.ts"));
  const command = host.command(
    ...program("bridged-process.ts"),
    await makeBase(bed),
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

describe.skipIf(reason !== undefined)(title, () => {
  it("makes the bridge before the first VM, answers there alone on a host without IPv6 addresses, and takes the bridge with it", async () => {
    const host = await Namespace.make();
    await disableIpv6(host, "default");
    const { result, notices } = await served(host);
    expect(result).toEqual({
      atBridge: "init-missing",
      fromOutside: "refused",
      meanwhile: ["lo", "cable", "microvm0", expect.stringMatching(/^mvx[0-9a-f]{12}$/)],
      afterwards: ["lo", "cable"],
    });
    expect(notices).not.toContain("listens at every address");
  });

  it("says where nfs-ganesha cannot be kept to the address, and turns away who is not among its clients", async () => {
    const host = await Namespace.make();
    await disableIpv6(host, "all default");
    const { result, notices } = await served(host);
    expect(result).toMatchObject({ atBridge: "init-missing", fromOutside: "export-unknown" });
    expect(notices).toMatch(/nfs-ganesha listens at every address of this host, not at 10\.20\.1\.1 alone/);
  });
});
