/** One MicroVm as the engine drives it: check, diff, and then create, update, or delete and create; by the built package's own provider. */

import { check, create, delete as remove, diff, read, update } from "../../../provider/index.js";
import type { Values } from "../../../provider/plan/fields.js";

/** What an up did. */
export interface Step {
  readonly action: "create" | "update" | "replace" | "same";
  /** The inputs that made it a replace. */
  readonly replaces: readonly string[];
}

/** A resource and its state. */
export class Resource {
  readonly #urn: string;
  #id: string | undefined;
  #inputs: Values = {};
  #outputs: Values = {};

  constructor(readonly name: string) {
    this.#urn = `urn:pulumi:dev::nested::microvm:index:MicroVm::${name}`;
  }

  /** The Pulumi id; undefined when there is no VM. */
  get id(): string | undefined {
    return this.#id;
  }

  /** The outputs; empty when there is no VM. */
  get outputs(): Values {
    return this.#outputs;
  }

  /** Brings the VM to what a program says; a replacement deletes first. */
  async up(program: Values): Promise<Step> {
    const news = {
      ...program,
      owner: { organization: "organization", urn: this.#urn, program: "/lab" },
      __provider: 'exports.handler=()=>require("pulumi-microvm/provider")',
    };
    if (this.#id === undefined) {
      await this.#create(await checked({}, news));
      return { action: "create", replaces: [] };
    }
    const inputs = await checked(this.#inputs, news);
    const { changes, replaces } = await diff(this.#id, this.#outputs, inputs);
    if (replaces.length > 0) {
      const replacement = await checked({}, news);
      await this.destroy();
      await this.#create(replacement);
      return { action: "replace", replaces };
    }
    if (changes) this.#outputs = (await update(this.#id, this.#outputs, inputs)).outs;
    this.#inputs = inputs;
    return { action: changes ? "update" : "same", replaces: [] };
  }

  /** Reads what is there. */
  async refresh(): Promise<void> {
    if (this.#id === undefined) return;
    const { id, props = {} } = await read(this.#id, this.#outputs);
    this.#id = id;
    this.#outputs = props;
  }

  /** Deletes the VM; of one that is not there, nothing. */
  async destroy(): Promise<void> {
    if (this.#id === undefined) return;
    await remove(this.#id, this.#outputs);
    this.#id = undefined;
    this.#inputs = {};
    this.#outputs = {};
  }

  async #create(inputs: Values): Promise<void> {
    const { id, outs } = await create(inputs);
    this.#id = id;
    this.#inputs = inputs;
    this.#outputs = outs;
  }
}

async function checked(olds: Values, news: Values): Promise<Values> {
  const { inputs, failures } = await check(olds, news);
  if (failures.length === 0) return inputs;
  throw new Error(`check refuses: ${failures.map(({ reason }) => reason).join("; ")}`);
}
