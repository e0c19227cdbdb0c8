/**
 * A process that attaches and detaches when told to: started by the tests in a network namespace of theirs, and killed there.
 * Each line of its input is a JSON list of orders, all at once; each is answered with a line.
 */

import { createInterface } from "node:readline";

import { MicroVmError } from "../../../../provider/errors.js";
import {
  type Attachment,
  attachNetwork,
  changeForwards,
  detachNetwork,
  type NetworkedVm,
} from "../../../../provider/host/network/index.js";

export type NetworkOrder =
  | { readonly act: "attach" | "forward"; readonly vm: NetworkedVm }
  | { readonly act: "detach"; readonly instance: string };

/** `code` is `ok`, a MicroVmError's, or `crash`. */
export interface NetworkAnswer {
  readonly instance: string;
  readonly code: string;
  readonly text: string;
  readonly attachment?: OnTap;
}

type OnTap = Extract<Attachment, { readonly tap: string }>;

async function carryOut(order: NetworkOrder): Promise<OnTap | undefined> {
  switch (order.act) {
    case "attach":
      return (await attachNetwork(order.vm)) as OnTap | undefined;
    case "forward":
      await changeForwards(order.vm);
      return undefined;
    case "detach":
      await detachNetwork(order.instance);
      return undefined;
    default:
      return order satisfies never;
  }
}

async function answer(order: NetworkOrder): Promise<NetworkAnswer> {
  const instance = order.act === "detach" ? order.instance : order.vm.instance;
  try {
    return { instance, code: "ok", text: "", attachment: await carryOut(order) };
  } catch (error) {
    return { instance, code: error instanceof MicroVmError ? error.code : "crash", text: String(error) };
  }
}

process.stdout.write("ready\n");
createInterface({ input: process.stdin }).on("line", (line) => {
  for (const order of JSON.parse(line) as NetworkOrder[]) {
    void answer(order).then((said) => process.stdout.write(`${JSON.stringify(said)}\n`));
  }
});
