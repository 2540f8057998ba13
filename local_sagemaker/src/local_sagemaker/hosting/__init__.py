"""Models, endpoint configurations and endpoints: real model servers behind InvokeEndpoint."""
