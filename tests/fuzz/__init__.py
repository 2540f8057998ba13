"""`make fuzz`: seeded random input of every kind that the project takes from outside.

trying      tries a kind of input and counts; what a fault is
client      one HTTP request and its response, whatever a client library would refuse to send
mutations   documents and bytes with something wrong
shapes      requests from botocore's service models
service     the SageMaker API, S3, moto's services, raw HTTP; archives (environment `sagemaker`)
images      images sent to an endpoint with the project's own classifier (environment `training`)
files       pipeline files and form values (environment `airflow`)
__main__    starts a local SageMaker, lets the three try, and gives the verdict
"""
