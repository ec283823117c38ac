/** The package ships no types. It is CommonJS: `default` is the path of the binary for this platform. */
declare module 'workerd' {
  const workerd: { readonly default: string };
  export default workerd;
}
