/** How Linux reads its command line: written from the kernel's own sources, independent of how we write it. */

/** One word: `name` or `name=value`. */
export interface KernelWord {
  readonly name: string;
  readonly value?: string;
}

/** isspace() of the kernel (lib/ctype.c): its table is Latin-1. */
const isSpace = (character: string) => /^[\t\n\v\f\r \u00a0]$/.test(character);

/**
 * The words of a command line, as next_arg() in lib/cmdline.c finds them: a quote anywhere opens or closes a quotation, in
 * which blanks do not end a word; the first `=` that is not the first character ends the name; quotes around the whole
 * word or the value are dropped.
 */
export function kernelWords(line: string): KernelWord[] {
  const words: KernelWord[] = [];
  let at = 0;
  for (;;) {
    while (at < line.length && isSpace(line.charAt(at))) at += 1;
    if (at >= line.length) return words;
    const isQuoted = line.charAt(at) === '"';
    if (isQuoted) at += 1;
    let inQuote = isQuoted;
    let equals = 0;
    let end = at;
    for (; end < line.length && (inQuote || !isSpace(line.charAt(end))); end += 1) {
      if (equals === 0 && line.charAt(end) === "=") equals = end - at;
      if (line.charAt(end) === '"') inQuote = !inQuote;
    }
    const text = line.slice(at, end);
    words.push(wordOf(text, equals, isQuoted));
    at = end;
  }
}

function wordOf(text: string, equals: number, isQuoted: boolean): KernelWord {
  const unclosed = isQuoted && text.endsWith('"') ? text.slice(0, -1) : text;
  if (equals === 0) return { name: unclosed };
  const value = unclosed.slice(equals + 1);
  const isValueQuoted = value.startsWith('"');
  return {
    name: text.slice(0, equals),
    value: isValueQuoted ? value.slice(1).replace(/"$/, "") : value,
  };
}

/** The parts of nfsroot=, as root_nfs_parse_options() in fs/nfs/nfsroot.c takes them: the path ends at the first comma. */
export function nfsroot(value: string): { server: string; path: string; options: string[] } {
  const colon = value.indexOf(":");
  const [path = "", ...options] = value.slice(colon + 1).split(",");
  return { server: value.slice(0, colon), path, options };
}
