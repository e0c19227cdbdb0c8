import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { describe, expect, it } from "vitest";

import { exportPaths } from "../../../provider/exports/paths.js";
import { exportText } from "../../../provider/exports/record.js";
import { claimName } from "../../../provider/host/claim.js";
import { isForgotten } from "../../../provider/host/forgotten.js";
import { vmPaths } from "../../../provider/host/paths.js";
import { openStateDirectory } from "../../../provider/host/state-directory.js";
import { temporaryFolder } from "../host/folders.js";
import { sampleRecord, sampleWork } from "../host/sample-record.js";
import { type Outcome, runMicrovm } from "./microvm-command.js";

function microvm(stateDirectory: string, ...words: string[]): Promise<Outcome> {
  return runMicrovm(["--state-directory", stateDirectory, ...words]);
}

/** A state directory with one VM that was never started. */
async function withOneVm(): Promise<string> {
  const { path } = await openStateDirectory(join(await temporaryFolder(), "state"));
  await claimName(path, sampleRecord({ vmName: "web" }), sampleWork());
  return path;
}

/** The record of an export whose server has ended. */
async function writeExportRecord(stateDirectory: string, directory: string): Promise<void> {
  const { owner, creator } = sampleRecord();
  const { record, directory: folder } = exportPaths(stateDirectory, "files");
  await mkdir(folder, { recursive: true });
  await writeFile(
    record,
    exportText({
      version: 1,
      name: "files",
      instance: "0123456789abcdef",
      owner,
      phase: "ready",
      creator,
      serving: { type: "ganesha", directory, readOnly: false, squash: "none", allowedClients: [] },
      place: { address: "127.0.0.1", port: 20490, mountPort: 20491, path: "/srv" },
      createdAt: "2026-01-01T00:00:00.000Z",
    }),
  );
}

describe("microvm", () => {
  it("prints its usage and fails with status 2 when it is not understood", async () => {
    const folder = await temporaryFolder();
    for (const words of [[], ["ps", "extra"], ["rm"], ["frobnicate"], ["--no-such-option"]]) {
      const outcome = await microvm(folder, ...words);
      expect(outcome.status, words.join(" ")).toBe(2);
      expect(outcome.stderr).toContain("Usage: microvm COMMAND");
    }
    expect((await microvm(folder, "frobnicate", "web")).stderr).toMatch(
      /^microvm: not understood: "frobnicate" "web"\n/,
    );
    expect((await microvm(folder, "--help")).stdout).toContain("forget NAME");
  });

  it("lists nothing in a state directory that is not there", async () => {
    const outcome = await microvm(join(await temporaryFolder(), "absent"), "ps");
    expect(outcome.stdout.trim().split(/\s+/)).toEqual(["NAME", "STATE", "BACKEND", "PID", "ROOT", "OWNER"]);
    expect(outcome.status).toBe(0);
  });

  it("lists a VM with its state and owner, as a table and as JSON", async () => {
    const state = await withOneVm();
    const { owner } = sampleRecord();
    expect((await microvm(state, "ps")).stdout).toContain(owner.urn);
    expect(JSON.parse((await microvm(state, "ps", "--json")).stdout)).toMatchObject({
      vms: [{ vmName: "web", state: "damaged", backend: "qemu", pid: "-", owner: owner.urn }],
      exports: [],
    });
  });

  it("lists an export with its address and what it serves, and removes it by its name", async () => {
    const state = await withOneVm();
    const directory = await temporaryFolder();
    await writeExportRecord(state, directory);
    const root = "127.0.0.1:20490+20491:/srv";
    expect(JSON.parse((await microvm(state, "ps", "--json")).stdout)).toMatchObject({
      exports: [
        { name: "files", state: "stopped", server: "nfs-ganesha", pid: "-", root, serves: directory },
      ],
    });
    expect((await microvm(state, "ps")).stdout).toMatch(
      /\n\nEXPORT +STATE +SERVER.*\nfiles +stopped +nfs-ganesha +- +127\.0\.0\.1:20490\+20491:\/srv /,
    );
    expect((await microvm(state, "rm", "files")).stdout).toBe("files is removed\n");
    expect((await microvm(state, "ps")).stdout).not.toContain("files");
    expect(await readdir(directory), "the folder stays").toEqual([]);
  });

  it("lists a VM whose record is torn, and removes it when asked to", async () => {
    const state = await withOneVm();
    await writeFile(vmPaths(state, "web").record, '{"version":1,"vmNa');
    expect((await microvm(state, "ps")).stdout).toContain("unreadable");
    expect((await microvm(state, "rm", "web")).stdout).toBe("web is removed\n");
    expect(await readdir(state)).not.toContain("web");
  });

  it("removes a VM, and says so when there is none of a name", async () => {
    const state = await withOneVm();
    expect((await microvm(state, "rm", "web")).status).toBe(0);
    expect(await readdir(state)).not.toContain("web");
    const again = await microvm(state, "rm", "web");
    expect(again).toMatchObject({
      status: 1,
      stderr: `microvm: there is neither a VM nor an export web in ${state}; microvm ps lists what is there [invalid-input]\n`,
    });
  });

  it("forgets a VM that is here, and one that never was", async () => {
    const state = await withOneVm();
    expect((await microvm(state, "forget", "web", "elsewhere")).status).toBe(0);
    expect(await readdir(state)).not.toContain("web");
    expect(await isForgotten(state, "web")).toBe(true);
    expect(await isForgotten(state, "elsewhere")).toBe(true);
  });

  it("prints a console log without what could play on the terminal", async () => {
    const state = await withOneVm();
    await writeFile(vmPaths(state, "web").consoleLog, "one\r\n\u001b[2Jtwo\r\nthr\u0007ee");
    expect((await microvm(state, "console", "web")).stdout).toBe("one\ntwo\nthree\n");
    expect((await microvm(state, "console", "other")).status).toBe(1);
  });

  it("refuses a name that is no name", async () => {
    const outcome = await microvm(await withOneVm(), "rm", "../web");
    expect(outcome.status).toBe(1);
    expect(outcome.stderr).toContain("vmName: expected one DNS label");
  });
});
