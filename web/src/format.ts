/** Numbers and times for people. */

const percentage = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat("en");
const moment = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });

export function percent(share: number): string {
  return percentage.format(share);
}

export function count(number: number | string): string {
  return whole.format(Number(number));
}

/** "1 picture", "2 pictures". */
export function plural(number: number, one: string, many = `${one}s`): string {
  return `${whole.format(number)} ${number === 1 ? one : many}`;
}

/** "KERNEL_RIDGE" as "Kernel ridge". */
function sentenceCase(constant: string): string {
  return constant.charAt(0) + constant.slice(1).toLowerCase().replaceAll("_", " ");
}

/** What the server says in a few words, as a sentence. */
export function sentence(words: string): string {
  const end = /[.!?]$/.test(words) ? "" : ".";
  return words.replace(/^./, (first) => first.toUpperCase()) + end;
}

export function bytes(size: number | string): string {
  const units = ["B", "kB", "MB", "GB"];
  let value = Number(size);
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

export function time(timestamp: string | undefined): string {
  return timestamp ? moment.format(new Date(timestamp)) : "";
}

const METHODS: Record<string, string> = {
  METHOD_STACK: "Stack (text, GDA, kernel ridge)",
  METHOD_ZERO_SHOT: "Zero-shot",
  METHOD_TIP_ADAPTER: "Tip-Adapter",
  METHOD_TIP_ADAPTER_F: "Tip-Adapter-F (fine-tuned)",
  METHOD_GDA: "GDA",
  METHOD_PROKER: "ProKeR",
  METHOD_CLASS_MEAN: "Class mean",
};

export function method(name: string | undefined): string {
  if (!name || name === "METHOD_UNSPECIFIED") return "";
  // One that this page is too old for, by its own name.
  return METHODS[name] ?? sentenceCase(name.replace(/^METHOD_/, ""));
}
