/** What the SDK tells the provider beside a resource's inputs: whose it is, and which inputs are secrets. */

import { realpathSync } from "node:fs";
import * as pulumi from "@pulumi/pulumi";

/** What is registered of a resource beside its inputs. */
export interface Registration {
  /** Its type token. */
  readonly type: string;
  readonly name: string;
  readonly parent: pulumi.Resource | undefined;
  /** Names of all that the provider adds to the inputs. */
  readonly outputs: readonly string[];
  /** What points at its provider: see pointer.ts. */
  readonly provider: string;
}

/**
 * The properties of a resource that is to be registered: its outputs as yet unknown, its inputs, and what the provider is told beside
 * them.
 *
 * @param inputs Those that the program gives.
 */
export function propertiesOf(
  inputs: object,
  { type, name, parent, outputs, provider }: Registration,
): pulumi.Inputs {
  return {
    ...Object.fromEntries(outputs.map((output) => [output, undefined])),
    ...inputs,
    owner: ownerOf(type, name, parent),
    secretInputs: secretsOf(inputs),
    __provider: provider,
  };
}

/** Who a resource of ours will belong to. */
function ownerOf(type: string, name: string, parent: pulumi.Resource | undefined): pulumi.Input<object> {
  return {
    organization: organization(),
    urn: urnOf(type, name, parent),
    program: realpathSync(process.cwd()),
  };
}

/**
 * A plain promise: createUrn's Output depends on the parent, and whatever depends on a component waits for all its children, so
 * that two VMs of one component would wait for each other.
 */
function urnOf(type: string, name: string, parent: pulumi.Resource | undefined): Promise<string> {
  return new Promise((resolve) => {
    pulumi.createUrn(name, type, parent).apply(resolve);
  });
}

/** A program that is tested with Pulumi's mocks may have no organization, and getOrganization then throws. */
function organization(): string {
  try {
    return pulumi.getOrganization();
  } catch {
    return "organization";
  }
}

/** Names of the inputs that are secrets: the engine shows the provider their values, but not that they are. */
function secretsOf(inputs: object): pulumi.Output<string[] | undefined> {
  const secrets = Object.entries(inputs).map(async ([name, value]) =>
    value !== undefined && (await pulumi.isSecret(pulumi.output(value))) ? [name] : [],
  );
  return pulumi.output(
    Promise.all(secrets).then((names) => (names.flat().length > 0 ? names.flat() : undefined)),
  );
}
