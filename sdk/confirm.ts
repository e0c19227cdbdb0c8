/** The note that the engine has saved a resource: from then on it is no leftover of a killed `up`, and no create may reclaim it. */

import * as pulumi from "@pulumi/pulumi";

import { noticeText } from "../provider/notices.js";

/**
 * Notes in an `up`, and never in a preview, that a resource is saved: when its id is there, the engine has done so. A note that cannot be
 * made is a warning, since the next preview makes it.
 *
 * @param outputs What `confirm` needs of the resource.
 * @param confirm Makes the note.
 */
export function confirmWhenSaved<Outputs>(
  resource: pulumi.CustomResource,
  outputs: pulumi.Input<Outputs>,
  confirm: (id: string, outputs: pulumi.Unwrap<Outputs>) => Promise<unknown>,
): void {
  if (pulumi.runtime.isDryRun()) return;
  pulumi.all([resource.id, pulumi.output(outputs)]).apply(async ([id, known]) => {
    if (id === undefined) return; // its create has failed
    try {
      await confirm(id, known as pulumi.Unwrap<Outputs>);
    } catch (error) {
      const [vm = id] = id.split("/");
      await pulumi.log.warn(noticeText("not-confirmed", { vm, finding: String(error) }), resource);
    }
  });
}
