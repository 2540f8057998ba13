"""Who may use the port: hosts, web pages of other origins, cookies and signatures.

`middleware` stands before everything else that handles a request.
"""
