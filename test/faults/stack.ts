/** The engine's part, as far as it matters here: what its state holds, and what an up does with it. */

import { confirm } from "../../provider/host/confirm.js";
import { check, create, delete as remove, diff, read, update } from "../../provider/index.js";
import { referenceOf } from "../../provider/observed.js";
import type { Values } from "../../provider/plan/fields.js";
import type { Order, Resource } from "./provider-process.js";

/** A stack of one MicroVm. */
export class Stack {
  /** What the state holds. An operation that was killed leaves it as it was. */
  resource: Resource | undefined;

  /** What an up of the program would ask of the provider; undefined when nothing is to be done. */
  async plan(program: Values): Promise<Order | undefined> {
    const { resource } = this;
    if (resource === undefined) return { what: "create", inputs: await checked({}, program) };
    const inputs = await checked(resource.inputs, program);
    const { changes, replaces } = await diff(resource.id, resource.outputs, inputs);
    if (replaces.length > 0) return { what: "replace", resource, program };
    return changes ? { what: "update", resource, inputs } : undefined;
  }

  /** Plans and does it, in this process, to its end. */
  async up(program: Values): Promise<Order["what"] | "nothing"> {
    const order = await this.plan(program);
    if (order === undefined) return "nothing";
    switch (order.what) {
      case "create":
        await this.#create(order.inputs);
        break;
      case "update": {
        const { id, outputs } = order.resource;
        const { outs } = await update(id, outputs, order.inputs);
        this.resource = { id, inputs: order.inputs, outputs: outs };
        break;
      }
      case "delete":
      case "replace":
        await this.destroy();
        await this.#create(await checked({}, program));
        break;
      default:
        return order satisfies never;
    }
    return order.what;
  }

  async destroy(): Promise<void> {
    if (this.resource !== undefined) await remove(this.resource.id, this.resource.outputs);
    this.resource = undefined;
  }

  /** What a refresh finds. */
  async refresh(): Promise<Values | undefined> {
    const { resource } = this;
    return resource === undefined ? undefined : (await read(resource.id, resource.outputs)).props;
  }

  /** Takes over what a finished create or update gave: the engine has written it, and the program has seen the id. */
  async record(resource: Resource): Promise<void> {
    this.resource = resource;
    const { stateDirectory, vmName, instance } = referenceOf(resource.id, resource.outputs);
    await confirm(stateDirectory, vmName, instance);
  }

  async #create(inputs: Values): Promise<void> {
    const { id, outs } = await create(inputs);
    await this.record({ id, inputs, outputs: outs });
  }
}

async function checked(olds: Values, program: Values): Promise<Values> {
  const { inputs, failures } = await check(olds, program);
  if (failures.length > 0) throw new Error(`check failed: ${JSON.stringify(failures)}`);
  return inputs;
}
