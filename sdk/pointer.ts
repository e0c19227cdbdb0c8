/**
 * What stands in Pulumi's state instead of code. A dynamic provider is serialised into every resource; ours is one
 * line that points at this package, so that old resources run new code and an upgrade shows no difference.
 */

import * as pulumi from "@pulumi/pulumi";

/**
 * The provider of a MicroVm, as the dynamic provider host evaluates it. It stands in the state of every resource ever
 * made: it must never change.
 */
export const microVmProvider = 'exports.handler=()=>require("pulumi-microvm/provider")';

/** The provider of a MicroVmSnapshot; as frozen as {@link microVmProvider}. */
export const snapshotProvider = 'exports.handler=()=>require("pulumi-microvm/snapshot")';

/** The provider of an AgentFs; as frozen as {@link microVmProvider}. */
export const agentFsProvider = 'exports.handler=()=>require("pulumi-microvm/agentfs")';

/** The provider of an NfsExport; as frozen as {@link microVmProvider}. */
export const nfsExportProvider = 'exports.handler=()=>require("pulumi-microvm/nfs")';

/** Shared by all copies of this package in one process. */
const PROVIDERS = Symbol.for("pulumi-microvm.providers");

type ProvidersByStack = WeakMap<object, pulumi.ProviderResource>;

class NodeProvider extends pulumi.ProviderResource {
  constructor() {
    super("pulumi-nodejs", "microvm", {});
  }
}

/**
 * The provider resource that carries our type tokens to Pulumi's dynamic provider host: one per stack resource, since
 * a second stack of the Automation API in one process needs its own.
 */
export function providerOfStack(): pulumi.ProviderResource {
  const shared = globalThis as { [PROVIDERS]?: ProvidersByStack };
  const providers = (shared[PROVIDERS] ??= new WeakMap());
  // Without an engine (a unit test with mocks) there may be no stack resource.
  const stack = pulumi.runtime.getStackResource() ?? providers;
  let provider = providers.get(stack);
  if (provider === undefined) {
    provider = new NodeProvider();
    providers.set(stack, provider);
  }
  return provider;
}
