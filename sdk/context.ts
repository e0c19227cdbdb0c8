/** What the SDK tells the provider beside a resource's inputs: whose it is, and which inputs are secrets. */

import { realpathSync } from "node:fs";
import * as pulumi from "@pulumi/pulumi";

/** Who a resource of ours will belong to. */
export function ownerOf(
  type: string,
  name: string,
  parent: pulumi.Resource | undefined,
): pulumi.Input<object> {
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
export function secretsOf(inputs: object): pulumi.Output<string[] | undefined> {
  const secrets = Object.entries(inputs).map(async ([name, value]) =>
    value !== undefined && (await pulumi.isSecret(pulumi.output(value))) ? [name] : [],
  );
  return pulumi.output(
    Promise.all(secrets).then((names) => (names.flat().length > 0 ? names.flat() : undefined)),
  );
}
