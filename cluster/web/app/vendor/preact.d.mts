// What the pages use of preact.mjs.
export function h(type: any, props: any, ...children: any[]): any;
export function render(node: any, parent: Element): void;
export function Fragment(props: any): any;
