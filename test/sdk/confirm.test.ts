import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterAll, beforeAll, expect, it, vi } from "vitest";

import { NfsExport } from "../../sdk/index.js";
import { recordRegistrations, whenRegistered } from "./registered.js";

let stateDirectory: string;

beforeAll(async () => {
  stateDirectory = await mkdtemp(join(tmpdir(), "microvm-confirm-"));
  await mkdir(join(stateDirectory, ".exports", "kept"), { recursive: true });
});

afterAll(async () => {
  await rm(stateDirectory, { recursive: true });
});

async function confirmations(): Promise<string[]> {
  return await readdir(join(stateDirectory, ".exports", "kept"));
}

it("notes that the engine has saved a resource in an up, and not in a preview", async () => {
  await recordRegistrations({ stateDirectory });
  await whenRegistered(new NfsExport("kept", { directory: "/srv/root" }));
  expect(await confirmations()).toEqual([]);
  await recordRegistrations({ stateDirectory }, false);
  await whenRegistered(new NfsExport("kept", { directory: "/srv/root" }));
  await vi.waitFor(async () => expect(await confirmations()).toEqual(["confirmed-0123456789abcdef"]));
});
