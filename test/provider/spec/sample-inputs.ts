/** Inputs as a program gives them, and who asks. */

import { specOf, type ResourceContext, type SpecResult } from "../../../provider/spec/check.js";

export type Inputs = Readonly<Record<string, unknown>>;

/** The smallest inputs of an NFS root. */
export const nfsInputs: Inputs = {
  kernel: "/boot/vmlinuz",
  useNfsRoot: true,
  nfsServer: "127.0.0.1",
  nfsPort: 11111,
};

/** The smallest inputs of a disk root. */
export const diskInputs: Inputs = { kernel: "/boot/vmlinuz", rootfs: "/srv/rootfs.img" };

export const urn = "urn:pulumi:dev::shop::microvm:index:MicroVm::web";

export const owner = { organization: "organization", urn, program: "/srv/shop" };

/** What the SDK says beside the inputs. */
export function context(changes: Partial<ResourceContext> = {}): ResourceContext {
  return { owner, createFirst: false, secretInputs: new Set(), ...changes };
}

/** What is wrong with inputs, as a person reads it. */
export async function messagesOf(inputs: Inputs, secretInputs: readonly string[] = []): Promise<string[]> {
  const { failures } = await specOf(inputs, context({ secretInputs: new Set(secretInputs) }));
  return failures.map(({ input, text }) => `${input}: ${text}`);
}

/** The spec of inputs that are right. */
export async function checked(
  inputs: Inputs,
  changes: Partial<ResourceContext> = {},
): Promise<SpecResult & Required<Pick<SpecResult, "spec">>> {
  const result = await specOf(inputs, context(changes));
  const { spec } = result;
  if (spec === undefined) throw new Error(`not right or not known: ${JSON.stringify(result.failures)}`);
  return { ...result, spec };
}
