/**
 * A process that claims names when told to: started by the tests, which may kill it.
 * Each line of its input is a JSON list of [state directory, record, wait in seconds]; all of a line at once. Its
 * records name it as their creator. For each claim it answers with a line, `{ instance, code }`.
 */

import { createInterface } from "node:readline";

import { MicroVmError } from "../../../provider/errors.js";
import { claimName } from "../../../provider/host/claim.js";
import { thisProcess } from "../../../provider/host/process.js";
import type { VmRecord } from "../../../provider/host/record.js";
import { sampleWork } from "./sample-record.js";

export type ClaimOrder = readonly [stateDirectory: string, record: VmRecord, waitSeconds: number];

/** `code` is `ok`, a MicroVmError's, or the text of any other error. */
export interface ClaimAnswer {
  readonly instance: string;
  readonly code: string;
  readonly message: string;
  readonly lines: readonly string[];
}

async function claim([stateDirectory, record, waitSeconds]: ClaimOrder): Promise<ClaimAnswer> {
  const work = sampleWork();
  const { instance } = record;
  try {
    await claimName(stateDirectory, { ...record, creator: thisProcess() }, work, { waitSeconds });
    return { instance, code: "ok", message: "", lines: work.lines };
  } catch (error) {
    const code = error instanceof MicroVmError ? error.code : String(error);
    return { instance, code, message: String(error), lines: work.lines };
  }
}

process.stdout.write("ready\n");
createInterface({ input: process.stdin }).on("line", (line) => {
  for (const order of JSON.parse(line) as ClaimOrder[]) {
    void claim(order).then((answer) => process.stdout.write(`${JSON.stringify(answer)}\n`));
  }
});
