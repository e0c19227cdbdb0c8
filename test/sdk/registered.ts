/** What programs under test have registered, with Pulumi's mocks in place of an engine. */

import * as pulumi from "@pulumi/pulumi";

/** One resource as the engine would be asked to register it. */
export interface Registered {
  readonly type: string;
  readonly inputs: Readonly<Record<string, unknown>>;
  readonly provider?: string;
}

/**
 * Has resources registered with nobody, in the stack `dev` of the project `shop`.
 *
 * @param state Outputs beside the inputs.
 * @param isPreview Whether this is a preview, else an `up`.
 * @returns What is registered from now on, by resource name.
 */
export async function recordRegistrations(
  state: Readonly<Record<string, unknown>> = {},
  isPreview = true,
): Promise<ReadonlyMap<string, Registered>> {
  const registered = new Map<string, Registered>();
  await pulumi.runtime.setMocks(
    {
      newResource: ({ type, name, inputs, provider }) => {
        registered.set(name, { type, inputs, provider });
        return { id: `${name}/0123456789abcdef`, state: { ...inputs, ...state } };
      },
      call: () => ({}),
    },
    "shop",
    "dev",
    isPreview,
  );
  return registered;
}

/** Waits until a resource is registered. */
export async function whenRegistered(resource: pulumi.Resource): Promise<void> {
  await new Promise((resolve) => resource.urn.apply(resolve));
}
