// htm.mjs: a template tag bound to a function that makes nodes.
declare const htm: {
  bind(make: Function): (strings: TemplateStringsArray, ...values: any[]) => any;
};
export default htm;
