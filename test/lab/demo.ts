/**
 * `npm run demo`: a preview with the kernel command line, an `up` that boots a real guest from an NFS root, the guest's own words, a
 * preview in which a changed server is a replace, and a destroy that leaves nothing.
 *
 * `MICROVM_NFS=HOST:PORT:PATH` uses a person's own server instead of one on loopback, and then needs no root.
 */

import { readFile, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { stockKernel } from "./debian-kernel.js";
import { Stack } from "./engine.js";
import { makeGuestRoot } from "./guest.js";
import { startNfsServer, whyNoNfsServer } from "./nfs.js";
import { isOnPath } from "./programs.js";
import { type NfsRoot, parseNfsRoot } from "../../provider/cli/nfs-root.js";

const REPOSITORY = resolve(__dirname, "../..");
const SCRATCH = join(REPOSITORY, ".lab/demo");
// An address of a documentation network (RFC 5737): nobody answers there.
const OTHER_SERVER = "192.0.2.10";

/** Where the demo's guest finds its root, and what to do when that is no longer needed. */
interface Served extends NfsRoot {
  /** The exported directory, where it is ours. */
  readonly directory?: string;
  stop(): Promise<void>;
}

async function demo(): Promise<void> {
  const begun = Date.now();
  title("The parts");
  const kernel = await stockKernel();
  say(`kernel      ${kernel}`);
  const served = await serve();
  say(`NFS server  ${served.server}, port ${served.port}, export ${served.path}`);
  try {
    const stack = await Stack.create({
      folder: join(SCRATCH, "stack"),
      from: join(REPOSITORY, "examples/nfs-root"),
      program: {},
      config: configuration(kernel, served),
    });
    try {
      await story(stack, served);
    } catch (error) {
      // The VM goes before its root does.
      await stack.run("destroy", "--yes", "--skip-preview");
      throw error;
    } finally {
      await stack.dispose();
    }
  } finally {
    await served.stop();
  }
  title(`Done in ${Math.round((Date.now() - begun) / 1000)} s`);
  say("Next: boot your own root. In this folder, with your NFS server:");
  const cli = process.env["MICROVM_LAB_PULUMI"];
  if (cli !== undefined && !isOnPath("pulumi")) say(`  export PATH=$PATH:${cli}`);
  say("  pulumi login --local          # or your own Pulumi account");
  say("  pulumi stack init dev");
  say(`  pulumi config set microvm:kernel ${kernel}`);
  say("  pulumi config set microvm:nfsServer HOST && pulumi config set microvm:nfsPort PORT");
  say("  pulumi config set microvm:nfsPath /EXPORT");
  say("  pulumi up");
}

async function story(stack: Stack, served: Served): Promise<void> {
  title("1. Preview: what will boot, to the letter");
  await pulumi(stack, "preview", "--diff");

  title("2. Up: boots the guest, and is green only when the guest has proved its root");
  await pulumi(stack, "up", "--yes", "--skip-preview");

  title("3. The guest's own words");
  const { consoleLog } = await stack.outputs();
  const lines = (await readFile(String(consoleLog), "utf8")).split(/\r?\n/).map((line) => line.trimEnd());
  const words = lines.filter((line) => /^(?:guest|microvm-initramfs): |VFS: Mounted root/.test(line));
  for (const line of words.length > 0 ? words : lines.slice(-10)) say(`console      | ${line}`);
  if (served.directory !== undefined) {
    const file = join(served.directory, "var/boots.txt");
    say(`${file} | ${(await readFile(file, "utf8")).trimEnd()}`);
  }

  title(
    `4. Preview with another nfsServer (${OTHER_SERVER}): a replace (preflight off: nobody is there to be asked)`,
  );
  await stack.setConfig("microvm:nfsServer", OTHER_SERVER);
  await stack.setConfig("microvm:preflight", "off");
  await pulumi(stack, "preview", "--diff");

  title("5. Destroy");
  await pulumi(stack, "destroy", "--yes", "--skip-preview");
  const left = await stack.leftovers();
  if (left.length > 0) throw new Error(`the destroy left something behind: ${left.join(", ")}`);
  say("left behind: no process, no file, no socket");
}

/** Runs a command of the CLI whose output the person sees as it comes. */
async function pulumi(stack: Stack, ...args: string[]): Promise<void> {
  say(`$ pulumi ${args.join(" ")}`);
  const color = process.stdout.isTTY ? "always" : "never";
  const run = stack.startShown(args, (text) => process.stdout.write(text), color);
  const { exitCode, signal } = await run.result;
  if (exitCode !== 0) throw new Error(`pulumi ${args[0]} ended with ${exitCode ?? signal}`);
  if (interrupted) throw new Error("interrupted");
}

function configuration(kernel: string, { server, port, mountPort, path }: NfsRoot): Record<string, string> {
  return {
    "microvm:kernel": kernel,
    "microvm:nfsServer": server,
    "microvm:nfsPort": String(port),
    "microvm:nfsPath": path,
    ...(mountPort === undefined ? {} : { "microvm:nfsMountPort": String(mountPort) }),
  };
}

async function serve(): Promise<Served> {
  const given = process.env["MICROVM_NFS"];
  if (given !== undefined && given !== "")
    return { ...parseNfsRoot(given, "MICROVM_NFS"), stop: async () => {} };
  const reason = whyNoNfsServer();
  if (reason !== undefined) {
    throw new Error(`${reason}. Name a server of your own instead: MICROVM_NFS=HOST:PORT:PATH npm run demo`);
  }
  const directory = join(SCRATCH, "root");
  await rm(directory, { recursive: true, force: true });
  await makeGuestRoot(directory);
  const server = await startNfsServer({ exports: [{ path: directory }] });
  const { nfsPort: port, mountPort } = server;
  return { server: "127.0.0.1", port, mountPort, path: directory, directory, stop: () => server.stop() };
}

function title(text: string): void {
  console.log(`\n== ${text}`);
}

function say(text: string): void {
  console.log(text);
}

// The engine gets a terminal's ^C as well and finishes what it has in hand; then everything is taken down.
let interrupted = false;
process.on("SIGINT", () => {
  interrupted = true;
  say("interrupted: taking everything down");
});

demo().catch((error: unknown) => {
  console.error(`\ndemo: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = interrupted ? 130 : 1;
});
