// What the pages use of dagre.mjs.
export class Graph {
  constructor(options?: any);
  setGraph(label: any): void;
  setDefaultEdgeLabel(label: any): void;
  setNode(name: string, label: any): void;
  setEdge(from: string, to: string, label?: any): void;
  node(name: string): any;
  edge(from: string, to: string): any;
  graph(): any;
}
export function layout(graph: Graph): void;
