/** One resource as the engine drives it: check, diff, and then create, update, or delete and create; by the built package's own provider. */

import * as agentFs from "../../../provider/agentfs.js";
import * as microVm from "../../../provider/index.js";
import * as nfsExport from "../../../provider/nfs.js";
import type { Values } from "../../../provider/plan/fields.js";

const providers = { MicroVm: microVm, AgentFs: agentFs, NfsExport: nfsExport };

/** What an up did. */
export interface Step {
  readonly action: "create" | "update" | "replace" | "same";
  /** The inputs that made it a replace. */
  readonly replaces: readonly string[];
}

/** A resource and its state. */
export class Resource {
  readonly #urn: string;
  readonly #provider: (typeof providers)[keyof typeof providers];
  #id: string | undefined;
  #inputs: Values = {};
  #outputs: Values = {};

  constructor(
    readonly name: string,
    type: keyof typeof providers = "MicroVm",
  ) {
    this.#urn = `urn:pulumi:dev::nested::microvm:index:${type}::${name}`;
    this.#provider = providers[type];
  }

  /** The Pulumi id; undefined when there is none. */
  get id(): string | undefined {
    return this.#id;
  }

  /** The outputs; empty when there is none. */
  get outputs(): Values {
    return this.#outputs;
  }

  /** The inputs that a program comes to, as a preview shows them. */
  async preview(program: Values): Promise<Values> {
    return await this.#checked(this.#inputs, program);
  }

  /** Brings it to what a program says; a replacement deletes first. */
  async up(program: Values): Promise<Step> {
    const inputs = await this.preview(program);
    if (this.#id === undefined) {
      await this.#create(inputs);
      return { action: "create", replaces: [] };
    }
    const { changes, replaces } = await this.#provider.diff(this.#id, this.#outputs, inputs);
    if (replaces.length > 0) {
      const replacement = await this.#checked({}, program);
      await this.destroy();
      await this.#create(replacement);
      return { action: "replace", replaces };
    }
    if (changes) this.#outputs = (await this.#provider.update(this.#id, this.#outputs, inputs)).outs;
    this.#inputs = inputs;
    return { action: changes ? "update" : "same", replaces: [] };
  }

  /** Reads what is there. */
  async refresh(): Promise<void> {
    if (this.#id === undefined) return;
    const { id, props = {} } = await this.#provider.read(this.#id, this.#outputs);
    this.#id = id;
    this.#outputs = props;
  }

  /** Deletes it; of one that is not there, nothing. */
  async destroy(): Promise<void> {
    if (this.#id === undefined) return;
    await this.#provider.delete(this.#id, this.#outputs);
    this.#id = undefined;
    this.#inputs = {};
    this.#outputs = {};
  }

  async #create(inputs: Values): Promise<void> {
    const { id, outs } = await this.#provider.create(inputs);
    this.#id = id;
    this.#inputs = inputs;
    this.#outputs = outs;
  }

  async #checked(olds: Values, program: Values): Promise<Values> {
    const owner = { organization: "organization", urn: this.#urn, program: "/lab" };
    // What it would point at is of use to the engine alone.
    const { inputs, failures } = await this.#provider.check(olds, { ...program, owner, __provider: "" });
    if (failures.length === 0) return inputs;
    throw new Error(`check refuses: ${failures.map(({ reason }) => reason).join("; ")}`);
  }
}
