/** `microvm console`: what the guest has written to its serial console. */

import { once } from "node:events";
import { followConsole } from "../console/follow.js";
import { MicroVmError } from "../errors.js";
import { vmPaths } from "../host/paths.js";
import { readRecord } from "../host/record.js";
import type { CommandContext } from "./microvm.js";

/**
 * Prints the console log without the control characters that a guest could play on the terminal with.
 *
 * @throws MicroVmError `invalid-input` when there is no VM of that name.
 */
export async function printConsole(
  { stateDirectory, print }: CommandContext,
  vmName: string,
  follow: boolean,
): Promise<number> {
  if ((await readRecord(stateDirectory, vmName)) === undefined) {
    throw new MicroVmError(
      "invalid-input",
      `there is no VM ${vmName} in ${stateDirectory}; microvm ps lists those that are there`,
    );
  }
  const end = new AbortController();
  if (follow) void once(process, "SIGINT").then(() => end.abort());
  else end.abort();
  let tail = "";
  for await (const chunk of followConsole(vmPaths(stateDirectory, vmName).consoleLog, {
    signal: end.signal,
  })) {
    chunk.lines.forEach((line) => print(line));
    ({ tail } = chunk);
  }
  if (tail !== "") print(tail);
  return 0;
}
