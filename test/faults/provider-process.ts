/**
 * The provider's process as the engine has it, for one operation at a time; the tests kill it. Each line of its input is an order in
 * JSON; it prints `begin`, `deleted` (in the middle of a replacement), and `end` with what the engine would write into its state.
 */

import { createInterface } from "node:readline";

import { messageOf } from "../../provider/errors.js";
import { check, create, delete as remove, update } from "../../provider/index.js";
import type { Values } from "../../provider/plan/fields.js";

/** A resource as the engine's state holds it. */
export interface Resource {
  readonly id: string;
  readonly inputs: Values;
  readonly outputs: Values;
}

/** What the engine would ask for; `inputs` are checked ones, `program` is what the program gives. */
export type Order =
  | { readonly what: "create"; readonly inputs: Values }
  | { readonly what: "update"; readonly resource: Resource; readonly inputs: Values }
  | { readonly what: "delete"; readonly resource: Resource }
  | { readonly what: "replace"; readonly resource: Resource; readonly program: Values };

async function obey(order: Order): Promise<Resource | undefined> {
  switch (order.what) {
    case "create":
      return await created(order.inputs);
    case "update": {
      const { id, outputs } = order.resource;
      const { outs } = await update(id, outputs, order.inputs);
      return { id, inputs: order.inputs, outputs: outs };
    }
    case "delete":
      await remove(order.resource.id, order.resource.outputs);
      return undefined;
    case "replace": {
      await remove(order.resource.id, order.resource.outputs);
      process.stdout.write("deleted\n");
      return await created((await check({}, order.program)).inputs);
    }
    default:
      return order satisfies never;
  }
}

async function created(inputs: Values): Promise<Resource> {
  const { id, outs } = await create(inputs);
  return { id, inputs, outputs: outs };
}

process.stdout.write("ready\n");
createInterface({ input: process.stdin }).on("line", (line) => {
  process.stdout.write("begin\n");
  void obey(JSON.parse(line) as Order).then(
    (resource) => process.stdout.write(`end ${JSON.stringify({ resource })}\n`),
    (error: unknown) => process.stdout.write(`end ${JSON.stringify({ error: messageOf(error) })}\n`),
  );
});
