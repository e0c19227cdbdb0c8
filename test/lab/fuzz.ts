/**
 * `npm run test:fuzz`: schemathesis (https://schemathesis.readthedocs.io) makes requests from the server's own OpenAPI document, right and
 * wrong ones, and none may be answered with a status of 500 or more, nor otherwise than the document says.
 *
 * First for VMs that are not there, on a server whose kernel is missing, so that no guest is booted; then for one that is, without what
 * removes it and what asks the command server that its guest does not have.
 */

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ServerBed } from "../provider/server/bed.js";
import { cached } from "./cache.js";
import { runProcess } from "./run-process.js";

const VERSION = "4.32.5";
const MOST_SECONDS = 170;

async function fuzz(): Promise<void> {
  const python = join(await installed(), "bin/python");
  const examples = process.argv[2] ?? "200";
  const bed = await ServerBed.open();
  const folder = await mkdtemp(join(tmpdir(), "lab-fuzz-"));
  let failed = 0;
  try {
    const run = async (what: string, config: string, more: readonly string[]): Promise<void> => {
      console.log(`\n${what}`);
      const file = join(folder, "schemathesis.toml");
      await writeFile(file, config);
      const args = [
        "-m",
        "schemathesis.cli",
        "--config-file",
        file,
        "run",
        `${bed.url}/openapi.yaml`,
        "--url",
        bed.url,
      ];
      // Not all that a kernel, a file or a back end asks of a request can stand in a schema.
      const excluded = ["--exclude-checks", "positive_data_acceptance"];
      const options = ["--max-examples", examples, "--workers", "1", "--no-color", ...excluded, ...more];
      const { exitCode } = await runProcess(python, [...args, ...options], {
        cwd: folder,
        timeoutSeconds: MOST_SECONDS,
        onOutput: (text) => process.stdout.write(text),
      });
      if (exitCode !== 0) failed += 1;
    };
    await bed.configure({ kernel: "./none.elf" });
    await bed.start();
    await run("VMs that are not there, and a kernel that is missing", "", []);
    await bed.post("web");
    await run("a VM that is there", '[parameters]\n"path.name" = "web"\n', [
      "--exclude-method",
      "DELETE",
      "--include-path-regex",
      "^/v1/vms/.name.(/console|/snapshots)?$",
    ]);
    const { status, body } = await bed.call("GET", "/v1/vms/web");
    console.log(`afterwards: ${status} ${JSON.stringify(body["status"])}`);
  } finally {
    await bed.close();
    await rm(folder, { recursive: true, force: true });
  }
  process.exitCode = failed;
}

/** A Python environment that holds it. */
async function installed(): Promise<string> {
  return await cached(`schemathesis-${VERSION}`, async (folder) => {
    for (const [command, args] of [
      ["python3", ["-m", "venv", folder]],
      [join(folder, "bin/python"), ["-m", "pip", "install", "-q", `schemathesis==${VERSION}`]],
    ] as const) {
      const { exitCode, output } = await runProcess(command, args);
      if (exitCode !== 0) throw new Error(output);
    }
  });
}

void fuzz();
