# One image for every Convoy process of the compose file; splits per application with the operations work.
FROM python:3.11-slim
WORKDIR /opt/convoy
COPY constraints.txt LICENSE ./
COPY contracts contracts
COPY audit audit
COPY models models
COPY node node
COPY coordinator coordinator
COPY demo demo
RUN pip install --no-cache-dir -c constraints.txt ./contracts ./audit ./models ./node './coordinator[federation,postgresql]' ./demo \
    && useradd --uid 10001 --create-home convoy && mkdir /state && chown convoy /state
USER convoy
