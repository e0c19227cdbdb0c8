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

describe.skipIf(reason !== undefined)(title, () => {
  it("makes the bridge before the first VM, answers at its address, and takes the bridge with it", async () => {
    const namespace = await Namespace.make();
    const program = join(__dirname, "bridged-process.ts");
    const command = namespace.command(process.execPath, "--import", "tsx", program, await makeBase(bed));
    const { stdout } = await promisify(execFile)(...command);
    const result: unknown = JSON.parse(/^result (.*)$/m.exec(stdout)?.[1] ?? "{}");
    expect(result).toEqual({
      atBridge: "init-missing",
      meanwhile: ["lo", "microvm0", expect.stringMatching(/^mvx[0-9a-f]{12}$/)],
      afterwards: ["lo"],
    });
  });
});
