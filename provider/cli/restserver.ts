#!/usr/bin/env node
/** `microvm-restserver`: serves Arrakis' REST API on this host's own VMs. */

import { parseArgs } from "node:util";
import { MicroVmError, messageOf, withCode } from "../errors.js";
import { serve, type ServeOptions } from "../server/serve.js";

const USAGE = `Usage: microvm-restserver --config FILE [OPTIONS]

Options:
  --config FILE         Arrakis' config.yaml
  --host ADDRESS        where to listen, instead of the file's host
  --port PORT           instead of the file's port; 0 takes a free one
  --state-dir DIR       where the VMs are kept, instead of the file's state_dir
  --allowed-host NAME   a name by which callers may call this server; may be given again
  --shutdown-timeout S  how many seconds a guest may take to power itself off before it is forced (10)
  --stop-timeout S      how many seconds requests may take to end when the server is stopped, before what
                        they make is undone (30)
  --insecure            listen at an address of the network without a token
  -h, --help            print this
`;

/**
 * Runs one command line, until SIGTERM or SIGINT.
 *
 * @param words What follows the program's name.
 * @returns Exit status: 0 done, 1 failed, 2 not understood.
 */
export async function main(words: readonly string[]): Promise<number> {
  let options: ServeOptions;
  try {
    const parsed = parse(words);
    if (parsed === undefined) {
      process.stdout.write(USAGE);
      return 0;
    }
    options = parsed;
  } catch (error) {
    process.stderr.write(`microvm-restserver: ${messageOf(error)}\n\n${USAGE}`);
    return 2;
  }
  try {
    const running = await serve(options, process.stdout);
    const asked = { times: 0 };
    await new Promise<void>((resolve, reject) => {
      const onSignal = (): void => {
        asked.times += 1;
        if (asked.times === 1) running.stop().then(resolve, reject);
        else running.hurry();
      };
      process.on("SIGTERM", onSignal).on("SIGINT", onSignal);
    });
    return 0;
  } catch (error) {
    if (!(error instanceof MicroVmError)) throw error;
    process.stderr.write(`microvm-restserver: ${withCode(error.message, error.code)}\n`);
    return 1;
  }
}

/** @returns undefined when help is asked for. */
function parse(words: readonly string[]): ServeOptions | undefined {
  const { values } = parseArgs({
    args: [...words],
    options: {
      config: { type: "string" },
      host: { type: "string" },
      port: { type: "string" },
      "state-dir": { type: "string" },
      "allowed-host": { type: "string", multiple: true, default: [] },
      "shutdown-timeout": { type: "string" },
      "stop-timeout": { type: "string" },
      insecure: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  const { config, host, port, insecure } = values;
  if (values.help) return undefined;
  if (config === undefined) throw new Error("expected --config FILE");
  return {
    config,
    host,
    port: integerIn("--port", port, 65_535),
    stateDirectory: values["state-dir"],
    allowedHosts: values["allowed-host"],
    shutdownTimeoutSeconds: integerIn("--shutdown-timeout", values["shutdown-timeout"], 3600),
    stopTimeoutSeconds: integerIn("--stop-timeout", values["stop-timeout"], 3600),
    insecure,
  };
}

function integerIn(option: string, text: string | undefined, most: number): number | undefined {
  if (text === undefined) return undefined;
  if (/^[0-9]{1,5}$/.test(text) && Number(text) <= most) return Number(text);
  throw new Error(`${option}: expected an integer from 0 to ${most}, got ${text}`);
}

async function run(): Promise<void> {
  process.exitCode = await main(process.argv.slice(2));
}

if (require.main === module) void run();
