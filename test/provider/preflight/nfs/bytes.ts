/** Hex digits with blanks between them, as the RFCs and hex dumps show bytes. */
export function bytes(hex: string): Buffer {
  return Buffer.from(hex.replaceAll(/\s/g, ""), "hex");
}
