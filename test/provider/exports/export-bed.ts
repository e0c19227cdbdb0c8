/** What the tests of exports share: the inputs of both resources on a host of their own. */

import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterEach } from "vitest";
import { removeExport } from "../../../provider/exports/life.js";
import { listExports } from "../../../provider/exports/record.js";
import { defaultStateDirectory } from "../../../provider/host/state-directory.js";
import type { Values } from "../../../provider/plan/fields.js";
import { type Bed, useBed } from "../bed.js";

/** A bed whose servers end with the test, whatever it came to. */
export function useExportBed(): Bed {
  const bed = useBed();
  afterEach(async () => {
    const stateDirectory = defaultStateDirectory();
    for (const record of await listExports(stateDirectory)) await removeExport(stateDirectory, record);
  });
  return bed;
}

/** A folder with some files, as a root file system. */
export async function makeBase(bed: Bed): Promise<string> {
  const base = join(bed.folder, "base");
  await mkdir(join(base, "etc/cfg"), { recursive: true });
  await writeFile(join(base, "etc/hosts"), "127.0.0.1 localhost\n", { mode: 0o644 });
  await writeFile(join(base, "etc/cfg/big"), Buffer.alloc(3_000_000, "x"), { mode: 0o600 });
  await writeFile(join(base, "etc/motd"), "hello\n", { mode: 0o644 });
  return base;
}

/** What program and SDK give, for a resource of this name in a program in the bed's folder. */
export function newsOf(type: "AgentFs" | "NfsExport", bed: Bed, inputs: Values, name = "fs"): Values {
  return {
    ...inputs,
    owner: {
      organization: "organization",
      urn: `urn:pulumi:dev::shop::microvm:index:${type}::${name}`,
      program: bed.folder,
    },
    __provider: "",
  };
}

/** Listens on a port until it is closed. */
export async function occupy(port: number): Promise<() => Promise<void>> {
  const server = createServer();
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return async () => {
    server.close();
    await once(server, "close");
  };
}
